"""Decisions at a boundary: criteria at exits, choices and verification at the top.

These functions ask the executor for scores and tell sequences what came out; they hold no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple

from offramp.engine.sequence import Sequence
from offramp.exits.criteria import Criterion, Signals
from offramp.types.executor import HIDDEN_FEATURES, Executor, Scored, ScoreRow

LogProbs = tuple[tuple[int, float], ...]


class Test(NamedTuple):
    """One exit test: who, the threshold, what was seen, the confidence, and whether it fired."""

    sequence: Sequence
    signals: Signals
    scored: Scored
    confidence: float | None
    fired: bool


def score_row(sequence: Sequence, position: int) -> ScoreRow:
    """The row that chooses the token after `position`."""
    assert sequence.lease is not None
    prompt: Seq[int] = ()
    output: Seq[int] = ()
    if sequence.sampling.reads_history:
        prompt = sequence.tokens[: sequence.prompt_length]
        output = sequence.tokens[sequence.prompt_length : position + 1]
    too_short = position + 1 - sequence.prompt_length < sequence.sampling.min_tokens
    banned = sequence.stop_ids if too_short else ()
    return ScoreRow(position, sequence.lease.blocks, sequence.sampling, sequence.seed, prompt, output, banned)


def test_exits(executor: Executor, boundary: int, due: Iterable[tuple[Sequence, float]]) -> list[Test]:
    """Test live tokens at an exit, each against its threshold. Changes nothing."""
    groups: dict[Criterion, list[tuple[Sequence, float]]] = {}
    for sequence, threshold in due:
        assert sequence.criterion is not None
        groups.setdefault(sequence.criterion, []).append((sequence, threshold))
    tests: list[Test] = []
    for criterion, members in groups.items():
        tests += _test_group(executor, boundary, criterion, members)
    return tests


def _test_group(
    executor: Executor, boundary: int, criterion: Criterion, members: list[tuple[Sequence, float]]
) -> list[Test]:
    rows = [score_row(s, s.live) for s, _ in members]
    reads_head = criterion.reads_token or not criterion.needs <= HIDDEN_FEATURES
    if reads_head or criterion.needs:
        scores = executor.score(boundary, rows, criterion.needs, choose=reads_head)
    else:
        scores = [Scored(None, {}) for _ in rows]
    layer = executor.shape.exit_layers[boundary - 1]
    signals = [
        Signals(boundary, layer, s.num_output, scored.token, scored.features, s.earlier)
        for (s, _), scored in zip(members, scores, strict=True)
    ]
    confidences = criterion.confidence(signals)
    fired = [c is not None and c >= threshold for c, (_, threshold) in zip(confidences, members, strict=True)]
    if not reads_head and any(fired):
        chosen = iter(executor.score(boundary, [r for r, f in zip(rows, fired, strict=True) if f], frozenset()))
        scores = [next(chosen) if f else s for s, f in zip(scores, fired, strict=True)]
    return [
        Test(s, signal, scored, confidence, f and scored.token is not None)
        for (s, _), signal, scored, confidence, f in zip(members, signals, scores, confidences, fired, strict=True)
    ]


class TopChoice(NamedTuple):
    """What the top said about a sequence: the positions that arrived there and the score of each."""

    sequence: Sequence
    positions: range
    scores: Seq[Scored]


def top_choices(executor: Executor, sequences: Iterable[Sequence]) -> list[TopChoice]:
    """Score everything that has arrived at the top, in one batch. Changes nothing."""
    arrived = [(s, due) for s in sequences if (due := s.choice_due())]
    rows = [score_row(s, position) for s, due in arrived for position in due]
    if not rows:
        return []
    scores = iter(executor.score(executor.shape.num_segments, rows, frozenset()))
    return [TopChoice(s, due, [next(scores) for _ in due]) for s, due in arrived]


def apply_top(choice: TopChoice) -> tuple[list[LogProbs | None], bool]:
    """Verify drafts, oldest first, and append the top's own choice.

    The top's choice at position i checks the draft at i + 1; the first that disagrees is replaced and everything
    behind it is cut back; a live token that reached the top gives one more token.

    Returns:
        The log-probabilities of each token accepted by this, and whether the top then failed to choose one (its
        logits are not finite, or nothing is allowed).
    """
    sequence, positions, scores = choice
    accepted: list[LogProbs | None] = []
    for position, scored in zip(positions, scores, strict=True):
        if scored.token is None:
            return accepted, True
        accepted.append(scored.logprobs)
        if position == sequence.live:
            sequence.choose(sequence.top, scored.token, None)
        elif sequence.tokens[position + 1] == scored.token:
            sequence.accept()
        else:
            sequence.replace(scored.token)
            break
    return accepted, False
