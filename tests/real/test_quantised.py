"""What int8 and int4 cost on the default model, LM head included: perplexity on held-out text, and greedy choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from offramp import LLM, _native
from offramp.cli.flags import DEFAULT_MODEL
from offramp.executors.native.layout import PANEL
from offramp.executors.native.pack import pack_model
from offramp.executors.native.plan import plan_matrices
from offramp.models import load_model
from offramp.types.executor import ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_hidden
from tests.real.conftest import open_llm

TEXT = Path(__file__).parent.parent / "reference" / "moby-dick-1.txt"
CONTEXT = 900
WINDOWS = 2
"""The text is read in so many windows of so many tokens."""

Tokens = Sequence[int]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Top:
    """What the LM head gives after each of some tokens: its logits [tokens, vocab_size], and what `score` says.

    `choices` are greedy, each with its log-probability.
    """

    logits: Floats
    choices: list[tuple[int, float]]


class Model:
    """The default model on the native executor, with weights of one type."""

    def __init__(self, llm: LLM, dtype: str) -> None:
        model = load_model(DEFAULT_MODEL)
        self.llm, self.eps = llm, model.spec.rms_norm_eps
        self.norm: Floats = model.weights.load("model.norm.weight").astype(np.float32)
        plans = plan_matrices(model.spec, model.weights, dtype)
        self.head = pack_model(plans[:1], model.weights)[0]["embedding"]  # the LM head is tied to it

    def read(self, texts: Sequence[Tokens]) -> list[Top]:
        """Run texts to the top, in one batch."""
        executor = self.llm.engine.executor
        top, size = executor.shape.num_segments, executor.shape.block_size
        starts = list(accumulate((-(-len(t) // size) for t in texts), initial=0))
        tables = [range(a, b) for a, b in pairwise(starts)]
        rows = [SeqRows(range(len(t)), t, table) for t, table in zip(texts, tables, strict=True)]
        for segment in range(top):
            executor.run_segment(segment, rows)
        return [self._top(top, size, len(t), table) for t, table in zip(texts, tables, strict=True)]

    def _top(self, top: int, size: int, length: int, table: range) -> Top:
        executor, head = self.llm.engine.executor, self.head
        greedy = SamplingParams(logprobs=0)
        scored = executor.score(top, [ScoreRow(p, table, greedy, 0) for p in range(length)], frozenset())
        choices = [s.logprobs[0] for s in scored if s.logprobs is not None]
        hidden = read_hidden(executor, top, range(table.start * size, table.start * size + length))
        normed = np.stack([_native.rms_norm(row, self.norm, self.eps) for row in hidden])
        logits = np.empty((length, head.n), dtype=np.float32)
        _native.matmul(head.type, head.data, head.n, normed, 0, head.n // PANEL, logits, False)
        return Top(logits, choices)


def log_probs(top: Top) -> Floats:
    """Of every token after each token: [tokens, vocab_size]."""
    largest = top.logits.max(-1, keepdims=True)
    return np.asarray(top.logits - largest - np.log(np.exp(top.logits - largest).sum(-1, keepdims=True)))


def loss(model: Model) -> float:
    """Mean negative log-likelihood of the text's tokens, in nats."""
    tokens = model.llm.tokenizer.encode(TEXT.read_text(encoding="utf-8"))
    windows = [tokens[i * CONTEXT : (i + 1) * CONTEXT] for i in range(WINDOWS)]
    assert {len(w) for w in windows} == {CONTEXT}
    told = [log_probs(t)[np.arange(CONTEXT - 1), w[1:]] for t, w in zip(model.read(windows), windows, strict=True)]
    return -float(np.mean(told))


@cache
def exact_loss() -> float:
    with open_llm(dtype="float32", kv_dtype="float32") as llm:
        return loss(Model(llm, "float32"))


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantised(request: pytest.FixtureRequest) -> Iterator[Model]:
    with open_llm(dtype=request.param) as llm:
        yield Model(llm, request.param)


def test_perplexity_rises_by_less_than_one_percent(quantised: Model) -> None:
    assert np.exp(loss(quantised) - exact_loss()) < 1.01


def test_greedy_choices_agree(quantised: Model, cases: list[dict[str, Any]]) -> None:
    """Of the tokens that float32 chose (Transformers), each after the true ones before it."""
    tops = quantised.read([[*case["prompt"], *case["tokens"]] for case in cases])
    pairs = zip(tops, cases, strict=True)
    same = [c == t for top, case in pairs for (c, _), t in zip(top.choices[-65:-1], case["tokens"], strict=True)]
    assert np.mean(same) > 0.97


def test_these_are_the_logits_that_choices_are_made_from(quantised: Model, cases: list[dict[str, Any]]) -> None:
    for top in quantised.read([case["prompt"] for case in cases]):
        assert [t for t, _ in top.choices] == top.logits.argmax(-1).tolist()
        found = [p for _, p in top.choices]
        np.testing.assert_allclose(found, log_probs(top).max(-1), rtol=0, atol=1e-5)
