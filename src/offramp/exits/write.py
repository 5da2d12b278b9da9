"""Writing exit packs, as `offramp.exits.read` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from offramp.exits.pack import Base, ExitSpec
from offramp.exits.trunk import FILE
from offramp.files import replace_file
from offramp.types.exits import ExitParams
from offramp.weights.eight_bits import eight_bits_bytes
from offramp.weights.source import Array

FORMAT = 1


def write_pack(
    folder: Path,
    base: Base,
    exits: Sequence[ExitSpec],
    tensors: Mapping[str, Array],
    *,
    trunk: Mapping[str, Array] | None = None,
    vocabularies: Mapping[str, Sequence[int]] | None = None,
    defaults: ExitParams | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `exits.json` and the files of tensors to `folder`, which is made if need be; older ones are replaced.

    `tensors` and those of the `trunk` have the names and shapes that `offramp.exits.pack` lists.

    Raises:
        WeightsError: a tensor holds a number that float16 cannot, such as those of a training that diverged.
    """
    values = {
        "format": FORMAT,
        "base": _said(base),
        **({"trunk": {"rank": _rank(trunk)}} if trunk else {}),
        "vocabularies": {name: list(ids) for name, ids in (vocabularies or {}).items()},
        "exits": [_said(spec) for spec in exits],
        **({} if defaults is None else {"defaults": params_json(defaults)}),
        "provenance": dict(provenance or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (("exits.safetensors", tensors), (FILE, trunk)):
        if content:
            replace_file(folder / file, eight_bits_bytes(content))
        else:
            (folder / file).unlink(missing_ok=True)
    replace_file(folder / "exits.json", (json.dumps(values) + "\n").encode())


def _rank(trunk: Mapping[str, Array]) -> int:
    return next(len(tensor) for name, tensor in trunk.items() if name.endswith(".lora_a"))


def params_json(params: ExitParams) -> dict[str, Any]:
    """Exit parameters as JSON has them: those that are not the defaults, with layers as strings."""
    said = _said(params)
    if isinstance(params.threshold, Mapping):
        said["threshold"] = {str(layer): value for layer, value in params.threshold.items()}
    return said


def _said(value: Base | ExitSpec | ExitParams) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    named = {f.name: (getattr(value, f.name), f.default) for f in fields(value)}
    return {name: own for name, (own, default) in named.items() if own != default and own != {}}
