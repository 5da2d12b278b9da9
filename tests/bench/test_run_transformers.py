"""Transformers' worker chooses what Transformers itself generates, and an encoder-decoder gets plain weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from offramp.bench.engines import WORKERS
from offramp.bench.inputs import read_model
from offramp.models import load_any
from tests.bench.paper_toys import eight_bits_t5
from tests.models.toys import save_model

PROMPTS = [[3, 4, 5, 6], [7, 8, 9, 10]]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker program's class, loaded as a module; it imports its neighbours by plain names."""
    monkeypatch.syspath_prepend(str(WORKERS))
    return importlib.import_module("run_transformers").Transformers()


def chosen(worker: Any, files: dict[str, Any], count: int) -> list[list[int]]:
    """The first `count` tokens of each prompt."""
    worker.load(files, "float32", 1, 64)
    with torch.inference_mode():
        latest, state = worker._begin(PROMPTS)
        tokens = [latest]
        while len(tokens) < count:
            latest = worker._step([[token] for token in latest], state)
            tokens.append(latest)
    return [list(row) for row in zip(*tokens, strict=True)]


def generated(model: Any, count: int) -> list[list[int]]:
    """The same by Transformers' own loop, without a cache."""
    options: dict[str, Any] = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    made = model.float().eval().generate(torch.tensor(PROMPTS), use_cache=False, pad_token_id=0, **options)
    return [row[-count:] for row in made.tolist()]


def test_a_decoder_only_model(worker: Any, tmp_path: Path) -> None:
    save_model(tmp_path)
    files = read_model(str(tmp_path)).for_workers({"float32"}, 2, print)
    assert files["plain"] == files["path"] and files["start"] is None
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert chosen(worker, files, 6) == generated(model, 6)


def test_an_encoder_decoder_in_8_bits(worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    model = eight_bits_t5(tmp_path / "t5")
    said: list[str] = []
    made = read_model(str(tmp_path / "t5"), load=load_any)
    assert made.for_workers(set(), 2, said.append)["plain"] == str(made.path)
    files = made.for_workers({"float32"}, 2, said.append)
    assert made.for_workers({"float32"}, 2, said.append) == files and len(said) == 1
    assert Path(files["plain"]).parent == tmp_path / "cache" / "bench" and files["path"] == str(made.path)
    assert chosen(worker, files, 8) == generated(model, 8)
