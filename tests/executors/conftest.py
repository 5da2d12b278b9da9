"""The toy model that tests of executors share."""

from __future__ import annotations

import pytest

from tests.executors.toys import Toy, make_toy


@pytest.fixture(scope="session", params=["torch", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    """Tests that ask for it run on every executor."""
    return str(request.param)


@pytest.fixture(scope="session")
def toy(kind: str) -> Toy:
    """A small Llama."""
    return make_toy(kind=kind)
