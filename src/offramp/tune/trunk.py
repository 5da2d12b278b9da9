"""Running a model over whole sequences, and reading off what exits learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from offramp.errors import WeightsError
from offramp.models.spec import ModelSpec
from offramp.tune.samples import Sample
from offramp.types.executor import Executor, ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams
from offramp.weights.source import WeightSource

ROWS = 512
"""Rows of a call of the executor, and tokens of a group, unless a single sequence has more."""

BLOCK = 16

GREEDY = SamplingParams(logprobs=0)

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


@runtime_checkable
class HiddenSource(Executor, Protocol):
    """An executor whose hidden states can be read."""

    def hidden(self, boundary: int, slots: Sequence[int]) -> Floats:
        """Hidden states at a boundary (1..S+1): [slots, hidden_size] float32."""
        ...


class Top(NamedTuple):
    """What the top says about the tokens of some sequences.

    `hidden` [tokens, hidden_size]; `choice` [tokens], -1 where no token of an answer follows; `log_sum` [tokens], the
    log of the sum of exp(logits), 0 there.
    """

    hidden: Floats
    choice: Tokens
    log_sum: Floats


class LmHead:
    """The model's final norm and LM head, in NumPy."""

    def __init__(self, spec: ModelSpec, weights: WeightSource) -> None:
        name = "model.embed_tokens.weight" if spec.tie_word_embeddings else "lm_head.weight"
        self.matrix, self.norm = weights.load(name), weights.load("model.norm.weight")
        self._eps = spec.rms_norm_eps

    def logits_of(self, hidden: Floats, tokens: Tokens) -> Floats:
        """The logit [rows] of one token for each final hidden state [rows, hidden_size]."""
        normed = hidden / np.sqrt((hidden * hidden).mean(-1, keepdims=True) + self._eps) * self.norm
        return np.asarray((normed * self.matrix[tokens]).sum(-1), dtype=np.float32)


class Trunk:
    """An executor that runs whole samples. Its store holds the group that is at hand, and nothing else."""

    def __init__(self, executor: Executor) -> None:
        if not isinstance(executor, HiddenSource):
            raise TypeError("this executor does not tell its hidden states")
        self._executor = executor
        self._samples: Sequence[Sample] = ()
        self._tables: list[range] = []

    def run(self, samples: Sequence[Sample], segments: int) -> None:
        """Run all tokens of `samples` through the first `segments` segments."""
        self._samples, self._tables = samples, []
        used = 0
        for sample in samples:
            self._tables.append(range(used, used + num_blocks(sample)))
            used += num_blocks(sample)
        for start in range(0, max(len(s.token_ids) for s in samples), ROWS):
            parts = ((s.token_ids[start : start + ROWS], t) for s, t in zip(samples, self._tables, strict=True))
            batch = [SeqRows(range(start, start + len(ids)), ids, table) for ids, table in parts if ids]
            for segment in range(segments):
                self._executor.run_segment(segment, batch)

    def hidden(self, boundary: int) -> Floats:
        """Hidden states [tokens, hidden_size] of what was run, sequence after sequence."""
        pairs = zip(self._samples, self._tables, strict=True)
        slots = [table.start * BLOCK + p for sample, table in pairs for p in range(len(sample.token_ids))]
        return self._executor.hidden(boundary, slots)

    def top(self, lm_head: LmHead) -> Top:
        """What the top says about the tokens that were run to it. Its choices are the executor's own.

        The sum follows from the executor's probability for its choice and that token's logit, so that no other logit
        has to be had.

        Raises:
            WeightsError: the model gives numbers that are not finite.
        """
        rows, at = [], []
        begin = 0
        for sample, table in zip(self._samples, self._tables, strict=True):
            rows += [ScoreRow(p, table, GREEDY, 0) for p in sample.scored]
            at += [begin + p for p in sample.scored]
            begin += len(sample.token_ids)
        scored = self._executor.score(self._executor.shape.num_segments, rows, frozenset())
        tokens = np.array([-1 if s.token is None else s.token for s in scored], dtype=np.int32)
        if (tokens < 0).any():
            raise WeightsError("the model's logits are not finite", hint="check the weights, or try another `--dtype`")
        log_probs = np.array([s.logprobs[0][1] if s.logprobs else 0.0 for s in scored], dtype=np.float32)
        hidden = self.hidden(self._executor.shape.num_segments)
        choice, log_sum = np.full(begin, -1, dtype=np.int32), np.zeros(begin, dtype=np.float32)
        choice[at], log_sum[at] = tokens, lm_head.logits_of(hidden[at], tokens) - log_probs
        return Top(hidden, choice, log_sum)


def num_blocks(sample: Sample) -> int:
    """Blocks that a sample takes in the store."""
    return -(-len(sample.token_ids) // BLOCK)


def groups(samples: Sequence[Sample], span: range) -> Iterator[range]:
    """`span` cut into groups of samples to be run together."""
    start, tokens = span.start, 0
    for i in span:
        tokens += len(samples[i].token_ids)
        if i > start and tokens > ROWS:
            yield range(start, i)
            start, tokens = i, len(samples[i].token_ids)
    if start < span.stop:
        yield range(start, span.stop)
