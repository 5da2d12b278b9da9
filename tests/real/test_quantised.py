"""What int8 and int4 cost on the default model: perplexity on held-out text, and greedy choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from offramp import LLM
from offramp.cli.flags import DEFAULT_MODEL
from offramp.models import load_model
from offramp.types.executor import SeqRows
from tests.executors.kinds import read_hidden
from tests.real.conftest import open_llm

TEXT = Path(__file__).parent.parent / "reference" / "moby-dick-1.txt"
CONTEXT = 500
Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def exact_loss() -> float:
    with open_llm(dtype="float32", kv_dtype="float32") as llm:
        return loss(llm)


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantised(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with open_llm(dtype=request.param) as llm:
        yield llm


@cache
def exact_head() -> tuple[float, Logits, Logits]:
    """The final norm's epsilon and weights, and the LM head."""
    model = load_model(DEFAULT_MODEL)
    norm, matrix = (model.weights.load(f"model.{name}.weight").astype(np.float32) for name in ("norm", "embed_tokens"))
    return model.spec.rms_norm_eps, norm, matrix


def logits_of(llm: LLM, tokens: Sequence[int]) -> Logits:
    """Logits after each token, by the model's own head in float32: [tokens, vocab_size]."""
    executor = llm.engine.executor
    top, size = executor.shape.num_segments, executor.shape.block_size
    blocks = range(-(-len(tokens) // size))
    for segment in range(top):
        executor.run_segment(segment, [SeqRows(range(len(tokens)), tokens, list(blocks))])
    hidden = read_hidden(executor, top, range(len(tokens)))
    eps, norm, matrix = exact_head()
    logits: Logits = (hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + eps) * norm) @ matrix.T
    return logits


def loss(llm: LLM) -> float:
    """Mean negative log-likelihood of the text's tokens, in nats."""
    tokens = llm.tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:CONTEXT]
    assert len(tokens) == CONTEXT
    logits = logits_of(llm, tokens)[:-1].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_probs = logits[np.arange(CONTEXT - 1), tokens[1:]] - np.log(np.exp(logits).sum(-1))
    return float(-log_probs.mean())


def test_perplexity_rises_by_less_than_one_percent(exact_loss: float, quantised: LLM) -> None:
    assert np.exp(loss(quantised) - exact_loss) < 1.01


def test_greedy_choices_agree(quantised: LLM, cases: list[dict[str, Any]]) -> None:
    """Of the tokens that float32 chose (Transformers), each after the true ones before it."""
    same = []
    for case in cases:
        logits = logits_of(quantised, [*case["prompt"], *case["tokens"]])
        same += (logits[len(case["prompt"]) - 1 : -1].argmax(-1) == case["tokens"]).tolist()
    assert np.mean(same) > 0.97
