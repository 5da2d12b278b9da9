"""The default model, downloaded once and loaded once for each executor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp.llm import LLM

REFERENCE = Path(__file__).parent.parent / "reference" / "smollm2-135m.json"


def open_llm(**options: Any) -> LLM:
    """SmolLM2-135M with exits at layers 20 and 26; measured time has no say."""
    return LLM(exits=[20, 26], max_model_len=1024, profitability=False, **options)


@pytest.fixture(scope="session", params=["torch", "native"])
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    """In float32."""
    with open_llm(executor=request.param, dtype="float32", kv_dtype="float32") as llm:
        yield llm


@pytest.fixture(scope="session")
def cases() -> list[dict[str, Any]]:
    """What Transformers gives (scripts/reference.py): prompts, 64 greedy tokens, the largest logits."""
    content: dict[str, list[dict[str, Any]]] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return content["cases"]
