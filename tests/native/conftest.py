"""What tests of the C++ core share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from offramp import _native


@pytest.fixture(autouse=True)
def same_instruction_set() -> Iterator[None]:
    """A test may choose another instruction set; the next one finds the one before."""
    before = _native.isa()
    yield
    _native.choose_isa(before)
