"""A tiny chat model with an exit pack, on disk, and prompts for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp.llm import LLM
from tests.models.toys import save_model

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
SIZES: dict[str, Any] = {"num_hidden_layers": 4, "max_position_embeddings": 128}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template."""
    return save_spread_model(tmp_path_factory.mktemp("calibrate") / "model")


def save_spread_model(path: Path) -> Path:
    """Its logits are spread, so that exits are sure of some tokens, and right about some of those."""
    spread = save_model(path, **SIZES)
    for name, parameter in spread.named_parameters():
        if "layers" in name and parameter.ndim == 2:
            parameter.data *= 20 if "layers.0" in name else 10
        elif parameter.ndim == 2:
            parameter.data *= 40
    spread.save_pretrained(path)
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE}))
    return path


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Exits after layers 1 and 3 of 4, through the model's own head."""
    path = tmp_path / "pack"
    path.mkdir()
    base = {"num_layers": 4, "hidden_size": 16, "vocab_size": 258}
    (path / "exits.json").write_text(json.dumps({"format": 1, "base": base, "exits": [{"layer": 1}, {"layer": 3}]}))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"{chr(97 + i % 26)} is number {i * 37 % 101}\n" for i in range(60)))
    return path


@pytest.fixture(params=["native", "torch"])
def llm(request: pytest.FixtureRequest, model: Path, pack: Path) -> Iterator[LLM]:
    with open_llm(model, pack, executor=request.param) as llm:
        yield llm


def count_generated(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills up with how many prompts each further call of `llm.generate` had."""
    generate, counts = llm.generate, list[int]()

    def counting(prompts: Any, *rest: Any) -> Any:
        counts.append(len(prompts))
        return generate(prompts, *rest)

    monkeypatch.setattr(llm, "generate", counting)
    return counts


def open_llm(model: Path, pack: Path, **options: Any) -> LLM:
    types: dict[str, Any] = {"dtype": "float32", "kv_dtype": "float32"}
    return LLM(str(model), exits=str(pack), profitability=False, max_num_seqs=4, **types, **options)
