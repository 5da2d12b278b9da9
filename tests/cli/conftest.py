"""The command line with a fake `LLM` behind it."""

from __future__ import annotations

from typing import Any

import pytest

import offramp
from tests.cli.fake import FakeLLM


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    """The `LLM` that the next command will get."""
    fake = FakeLLM("")

    def make(model: str, **arguments: Any) -> FakeLLM:
        fake.made_with = {"model": model, **arguments}
        return fake

    monkeypatch.setattr(offramp, "LLM", make)
    return fake
