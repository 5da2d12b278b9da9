"""Running engine tests on every executor."""

from __future__ import annotations

import pytest

from tests.engine.toy_engine import Chosen
from tests.executors.kinds import KINDS


@pytest.fixture(params=[*KINDS, "t5"])
def each_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Engines that the test makes run on every executor, and on an encoder-decoder."""
    monkeypatch.setattr(Chosen, "kind", request.param)
    return str(request.param)


@pytest.fixture(params=KINDS)
def each_executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Engines that the test makes run on this kind of executor (`tests.executors.kinds`)."""
    monkeypatch.setattr(Chosen, "kind", request.param)
    return str(request.param)
