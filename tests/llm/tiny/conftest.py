"""A tiny checkpoint whose tokens are bytes, and an `LLM` over it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp import LLM, ExitParams, SamplingParams
from tests.models.toys import save_model

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
SIZES: dict[str, Any] = {"num_hidden_layers": 4, "max_position_embeddings": 128}
FREE = SamplingParams(max_tokens=20, ignore_eos=True)
EARLY = ExitParams(threshold=0.004)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy")
    save_model(path, **SIZES)
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE}))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed weights of models that are gone tomorrow do not belong in anybody's cache."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(params=["torch", "native"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"exits": [1, 2], "executor": request.param, "dtype": "float64" if request.param == "torch" else "auto"}


@pytest.fixture
def llm(folder: Path, options: dict[str, Any]) -> Iterator[LLM]:
    with LLM(str(folder), profitability=False, **options) as llm:
        yield llm
