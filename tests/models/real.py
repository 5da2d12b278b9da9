"""The real model of the tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from offramp.models import ALIASES, pull


@cache
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, pulled on first use."""
    return pull(ALIASES["smollm2-135m"])
