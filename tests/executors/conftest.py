"""The toy models that tests of executors share."""

from __future__ import annotations

import pytest

from tests.executors.t5_toys import make_t5_toy
from tests.executors.toys import AnyToy, make_toy


@pytest.fixture(scope="session", params=["torch", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    """Tests that ask for it run on every executor."""
    return str(request.param)


@pytest.fixture(scope="session", params=["torch", "native", "t5"])
def toy(request: pytest.FixtureRequest) -> AnyToy:
    """A small Llama on every executor, and a small T5. Whatever is about heads holds for all."""
    return make_t5_toy() if request.param == "t5" else make_toy(kind=request.param)
