"""What tests of the engine's process share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.engines import toy_options


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Those of a toy engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield toy_options(tmp_path_factory.mktemp("toy"))
