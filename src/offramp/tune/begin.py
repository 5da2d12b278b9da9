"""How a run begins, or goes on: a folder holds one run, with one set of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter
from offramp.files import replace_file
from offramp.tune.samples import check_same


def begin(out: Path, state: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Make the folder `state` in `out`, or check that it holds this very run and that it is to go on.

    Raises:
        InvalidParameter: it holds a run that is not to go on, or none where one should, or one with other settings.
    """
    path = state / "settings.json"
    if path.is_file():
        if not resume:
            raise InvalidParameter(
                f"`{out}` already holds a run", param="out", hint="go on with `--resume`, or choose another"
            )
        check_same(json.loads(path.read_bytes()), settings, f"`{out}`")
    elif resume:
        raise InvalidParameter(f"`{out}` holds no run to go on with", param="resume", hint="leave out `--resume`")
    state.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(settings).encode())
