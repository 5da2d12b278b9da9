"""The default model, downloaded once and loaded once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp.llm import LLM

REFERENCE = Path(__file__).parent.parent / "reference" / "smollm2-135m.json"


@pytest.fixture(scope="session")
def llm() -> Iterator[LLM]:
    """SmolLM2-135M in float32 with exits at layers 20 and 26; measured time has no say."""
    with LLM(exits=[20, 26], max_model_len=1024, profitability=False) as llm:
        yield llm


@pytest.fixture(scope="session")
def cases() -> list[dict[str, Any]]:
    """What Transformers gives (scripts/reference.py): prompts, 64 greedy tokens, the largest logits."""
    content: dict[str, list[dict[str, Any]]] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return content["cases"]
