"""Decisions at a boundary: criteria at exits, choices and verification at the top.

These functions ask the executor for scores and tell sequences what came out; they hold no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple

from offramp.engine.given import Given, given_logprobs
from offramp.engine.guide import Asked, compute_together
from offramp.engine.past import put_back
from offramp.engine.request import Fault
from offramp.engine.sequence import Sequence
from offramp.exits.criteria import Criterion, Signals
from offramp.types.executor import HIDDEN_FEATURES, Executor, Feature, Scored, ScoreRow
from offramp.types.output import LogProbs

Due = tuple[Sequence, float]
"""A sequence whose live token is tested, and its threshold."""

NOTHING_READ = Scored(None, {})


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
    return score_row_in(sequence.lease.blocks, sequence, position)


def score_row_in(blocks: Seq[int], sequence: Sequence, position: int) -> ScoreRow:
    """The same where the sequence's tokens lie in `blocks`."""
    sampling = sequence.sampling
    prompt: Seq[int] = ()
    output: Seq[int] = ()
    if sampling.reads_history:
        prompt = sequence.tokens[: sequence.prompt_length]
        output = sequence.tokens[sequence.prompt_length : position + 1]
    too_short = position + 1 - sequence.prompt_length < sampling.min_tokens
    banned = sequence.stop_ids if too_short else ()
    guide = sequence.guide
    allowed = None if guide is None else guide.after(sequence.tokens, position, sequence.accepted)
    return ScoreRow(position, blocks, sampling, sequence.seed, prompt, output, banned, allowed)


def masks_ahead(rows: Iterable[tuple[Sequence, int]]) -> None:
    """Compute the masks of several sequences at once, before their rows are made."""
    asked = [Asked(s.guide, s.tokens, position, s.accepted) for s, position in rows if s.guide is not None]
    if len(asked) > 1:
        compute_together(asked)


def test_exits(executor: Executor, boundary: int, due: Iterable[Due]) -> list[Test]:
    """Test live tokens at an exit, each against its threshold. Changes nothing but the executor's deep states.

    A criterion sees all its rows at once; criteria that read the same share a call of the executor.

    Raises:
        Fault: a criterion raised; those who brought it along are at fault.
    """
    due = list(due)
    put_back(executor, (sequence for sequence, _ in due))
    by_criterion: dict[int, list[Due]] = {}
    for member in due:
        by_criterion.setdefault(id(member[0].criterion), []).append(member)
    by_reading: dict[tuple[frozenset[Feature], bool], list[tuple[Criterion, list[Due]]]] = {}
    for members in by_criterion.values():
        criterion = members[0][0].criterion
        assert criterion is not None
        reads_head = criterion.reads_token or not criterion.needs <= HIDDEN_FEATURES
        by_reading.setdefault((criterion.needs, reads_head), []).append((criterion, members))
    tests: list[Test] = []
    for (needs, reads_head), groups in by_reading.items():
        tests += _test_groups(executor, boundary, groups, needs, reads_head)
    return tests


def _test_groups(
    executor: Executor,
    boundary: int,
    groups: list[tuple[Criterion, list[Due]]],
    needs: frozenset[Feature],
    reads_head: bool,
) -> list[Test]:
    members = [member for _, group in groups for member in group]
    scores = [NOTHING_READ] * len(members)
    if reads_head or needs:
        masks_ahead((s, s.live) for s, _ in members)
        scores = executor.score(boundary, [score_row(s, s.live) for s, _ in members], needs, choose=reads_head)
    layer = executor.shape.exit_layers[boundary - 1]
    signals = [
        Signals(boundary, layer, len(s.marks), scored.token, scored.features, s.earlier)
        for (s, _), scored in zip(members, scores, strict=True)
    ]
    confidences: list[float | None] = []
    for criterion, group in groups:
        try:
            confidences += _confidences(criterion, signals[len(confidences) : len(confidences) + len(group)])
        except Exception as error:
            raise Fault([s.number for s, _ in group], error) from error
    fired = [c is not None and c >= threshold for c, (_, threshold) in zip(confidences, members, strict=True)]
    if not reads_head and True in fired:
        rows = [score_row(s, s.live) for (s, _), f in zip(members, fired, strict=True) if f]
        chosen = iter(executor.score(boundary, rows, frozenset()))
        scores = [next(chosen) if f else s for s, f in zip(scores, fired, strict=True)]
    return [
        Test(s, signal, scored, confidence, f and scored.token is not None)
        for (s, _), signal, scored, confidence, f in zip(members, signals, scores, confidences, fired, strict=True)
    ]


def _confidences(criterion: Criterion, signals: Seq[Signals]) -> list[float | None]:
    """What a criterion says, which may be anybody's code.

    Raises:
        TypeError, ValueError: it is not a number or None for each token.
    """
    said = [None if c is None else float(c) for c in criterion.confidence(signals)]
    if len(said) != len(signals):
        raise ValueError(f"the criterion said {len(said)} confidences about {len(signals)} tokens")
    return said


class TopChoice(NamedTuple):
    """What the top said about a sequence: the positions that arrived there and the score of each."""

    sequence: Sequence
    positions: range
    scores: Seq[Scored]


def top_choices(executor: Executor, arrived: Iterable[tuple[Sequence, range]]) -> list[TopChoice]:
    """Score the positions that have arrived at the top, in one batch. Changes nothing."""
    arrived = list(arrived)
    masks_ahead((s, positions[0]) for s, positions in arrived)
    rows = [score_row(s, position) for s, positions in arrived for position in positions]
    scores = iter(executor.score(executor.shape.num_segments, rows, frozenset()))
    return [TopChoice(s, positions, [next(scores) for _ in positions]) for s, positions in arrived]


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


def score_prompts(executor: Executor, sequences: Iterable[Sequence], room: int) -> list[Sequence]:
    """Score what has reached the top of prompts that are asked about, at most `room` positions; others wait.

    Returns the sequences whose logits are not finite.
    """
    rows: list[Given] = []
    asked: list[tuple[Sequence, int, int]] = []
    for sequence in sequences:
        scores, lease = sequence.prompt_scores, sequence.lease
        assert scores.most is not None and lease is not None
        due = scores.due(sequence.frontier[-1], room - len(rows))
        rows += [Given(position, lease.blocks, sequence.tokens[position + 1]) for position in due]
        asked.append((sequence, scores.most, len(due)))
    told = iter(given_logprobs(executor, rows, max([most for _, most, _ in asked])) if rows else [])
    failed: list[Sequence] = []
    for sequence, most, count in asked:
        new = [next(told) for _ in range(count)]
        if None in new:
            failed.append(sequence)
        sequence.prompt_scores.told += [logprobs[: most + 1] for logprobs in new if logprobs is not None]
    return failed
