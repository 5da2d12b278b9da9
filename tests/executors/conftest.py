"""The toy models that tests of executors share."""

from __future__ import annotations

import pytest

from tests.executors.t5_toys import make_t5_toy
from tests.executors.toys import AnyToy, make_toy


@pytest.fixture(scope="session", params=["torch", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    """Tests that ask for it run on every executor."""
    return str(request.param)


@pytest.fixture(scope="session", params=["torch", "native", "t5-torch", "t5-native"])
def toy(request: pytest.FixtureRequest) -> AnyToy:
    """A small Llama and a small T5 on every executor. Whatever is about heads holds for all."""
    family, _, kind = request.param.rpartition("-")
    return make_t5_toy(kind=kind) if family else make_toy(kind=kind)
