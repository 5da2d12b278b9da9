"""GGUF files in other precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp.bench.gguf_files import requantized
from offramp.weights.gguf import GGUFWeights
from tests.weights.toys import write_gguf


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a matrix, an embedding and a norm, and the cache folder beside it."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    tensors = {
        "token_embd.weight": rng.standard_normal((8, 64)).astype(np.float32),
        "blk.0.ffn_up.weight": rng.standard_normal((32, 64)).astype(np.float32),
        "output_norm.weight": rng.standard_normal(64).astype(np.float32),
    }
    numbers = {"llama.block_count": 1, "llama.rope.freq_base": 1e5, "general.file_type": 3}
    texts, lists = {"tokenizer.ggml.model": "gpt2"}, {"tokenizer.ggml.tokens": ["a", "b"]}
    return write_gguf(tmp_path / "model.gguf", tensors, numbers=numbers, texts=texts, lists=lists)


@pytest.mark.parametrize(
    ("precision", "file_type", "kinds", "tolerance"),
    [
        ("q8_0", 7, ("Q8_0", "Q8_0"), 0.02),
        ("q4_0", 2, ("Q4_0", "Q8_0"), 0.3),
        ("q4_1", 3, ("Q4_1", "Q8_0"), 0.3),
        ("f16", 1, (None, None), 0.002),
    ],
)
def test_matrices_change_and_the_rest_stays(
    source: Path, precision: str, file_type: int, kinds: tuple[str | None, str | None], tolerance: float
) -> None:
    before, after = GGUFWeights(source), GGUFWeights(requantized(source, "0123456789abcdef" * 4, precision))
    matrix, embedding = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"
    assert (after.block_kind(matrix), after.block_kind(embedding)) == kinds
    for name in (matrix, embedding):
        assert np.abs(after.load(name).astype(np.float32) - before.load(name)).max() < tolerance
    assert np.array_equal(after.load("model.norm.weight"), before.load("model.norm.weight"))
    assert after.metadata == {**before.metadata, "general.file_type": file_type}


def test_a_file_is_written_once(source: Path) -> None:
    said: list[str] = []
    first = requantized(source, "a" * 64, "q8_0", said.append)
    stamp = first.stat().st_mtime_ns
    assert requantized(source, "a" * 64, "q8_0", said.append) == first
    assert first.stat().st_mtime_ns == stamp
    assert said == [f"writing {first.name}"]
    assert requantized(source, "b" * 64, "q8_0") != first


def test_a_file_that_cannot_be_written_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        requantized(source, "a" * 64, "q8_0")
    assert list((source.parent / "cache" / "bench").iterdir()) == []
