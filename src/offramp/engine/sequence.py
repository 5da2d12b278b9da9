"""A sequence and its frontiers: all the arithmetic of early exit, and nothing else.

`frontier[s]` counts the tokens whose KV is written in segment s; frontiers fall with s. The *live* token is the
newest. `marks` say at which boundary each output token was chosen; the position before an output token carries its
mark. Prefill, replay after preemption, decoding, filling, recomputation and verification are all "advance segment s
over the oldest tokens of [frontier[s], frontier[s-1])"; this file says which of them are due.
"""

from __future__ import annotations

from offramp.engine.blocks import Lease
from offramp.exits.criteria import Criterion, Signals
from offramp.types.executor import ModelShape
from offramp.types.exits import ExitParams
from offramp.types.output import FinishReason
from offramp.types.sampling import SamplingParams


class Sequence:
    """One output in the making. Mutated by the engine only, through the methods below."""

    def __init__(
        self,
        number: int,
        prompt: list[int],
        sampling: SamplingParams,
        seed: int,
        shape: ModelShape,
        exit: ExitParams | None = None,
        criterion: Criterion | None = None,
    ) -> None:
        self.number = number
        self.prompt_length = len(prompt)
        self.tokens = list(prompt)
        self.sampling = sampling
        self.seed = seed
        self.shape = shape
        self.exit = exit
        self.criterion = criterion
        self.exits_on = exit is not None
        self.accepted = len(prompt)
        self.marks: list[int] = []
        self.confidences: list[float | None] = []
        self.failed = 0
        self.earlier: tuple[Signals, ...] = ()
        self.first_exit: int | None = None
        self.frontier = [0] * shape.num_segments
        self.replay_to = [len(prompt)] * shape.num_segments
        self.lease: Lease | None = None
        self.parent: Sequence | None = None
        self.finish_reason: FinishReason | None = None
        self.switched_off = False
        self.drafts_proposed = self.drafts_accepted = self.top_passes = 0
        self.replayed_tokens = 0
        self.cached_prompt_tokens = 0
        self.due = 0.0
        limit = shape.max_model_len - len(prompt)
        self.max_tokens = limit if sampling.max_tokens is None else min(sampling.max_tokens, limit)
        self.reached = [0] * shape.num_segments

    # What it is

    @property
    def length(self) -> int:
        """Tokens, drafts included."""
        return len(self.tokens)

    @property
    def live(self) -> int:
        """Position of the newest token."""
        return self.length - 1

    @property
    def num_output(self) -> int:
        """Tokens chosen so far, drafts included."""
        return len(self.marks)

    @property
    def top(self) -> int:
        """The boundary above the last segment, S + 1."""
        return self.shape.num_segments

    @property
    def verifies(self) -> bool:
        """Whether tokens chosen at exits are drafts."""
        return self.exit is not None and self.exit.kv == "verify"

    @property
    def fills(self) -> bool:
        """Whether exited tokens pass the remaining segments."""
        return self.exit is not None and self.exit.kv == "fill"

    @property
    def drafts(self) -> bool:
        """Whether this sequence verifies and has not been switched off."""
        return self.verifies and self.exits_on

    @property
    def recomputes(self) -> bool:
        """Whether exited tokens run later, with the next token that climbs."""
        return self.exit is not None and self.exit.kv == "recompute"

    @property
    def num_drafts(self) -> int:
        """Tokens not yet accepted."""
        return len(self.tokens) - self.accepted

    @property
    def exact_length(self) -> int:
        """Tokens before the first one whose KV is, or will be, filled."""
        return self.length if self.first_exit is None or not self.fills else self.first_exit

    @property
    def cacheable_length(self) -> int:
        """Tokens that may enter the prefix cache: exact, accepted, and written in every layer."""
        return min(self.exact_length, self.accepted, self.frontier[-1])

    def mark(self, position: int) -> int:
        """The boundary at which the token after `position` was chosen; S+1 for the prompt and for the live token."""
        output = position - self.prompt_length + 1
        return self.marks[output] if 0 <= output < len(self.marks) else self.top

    # What is due

    @property
    def replaying(self) -> bool:
        """Whether prompt tokens, or tokens from before a preemption, are still on their way to where they belong."""
        return any(f < target for f, target in zip(self.frontier, self.replay_to, strict=True))

    @property
    def draft_ends(self) -> bool:
        """Whether the newest draft would end the request."""
        return self.num_drafts > 0 and self.ends_with(self.length)

    @property
    def verification_due(self) -> bool:
        """Whether the drafts must be checked before another token is begun."""
        if not self.verifies or not self.num_drafts:
            return False
        assert self.exit is not None
        return self.num_drafts >= self.exit.max_draft or not self.exits_on or self.draft_ends

    def ceiling(self, segment: int) -> int:
        """The segment's frontier when it has done all it should do now."""
        below = self.frontier[segment - 1] if segment else self.length
        if self.replaying:
            return min(below, self.replay_to[segment])
        return min(below, self.live if self.verification_due else self.length)

    def next_segment(self) -> int | None:
        """The segment this sequence needs next; None while it waits to be scored.

        A replay finishes what it began (deepest first), so that a chunk reaches its place before the next one
        starts; a live token climbs (lowest first) and takes the pending tokens it needs along.
        """
        order = range(self.top - 1, -1, -1) if self.replaying else range(self.top)
        return next((s for s in order if self.frontier[s] < self.ceiling(s)), None)

    def rows(self, segment: int, cap: int) -> range:
        """The positions that advance the segment next, oldest first, at most `cap`; due fills come before them."""
        start = self.frontier[segment]
        if self.fills and segment > 0 and not self.replaying:
            start = max(start, self.live)
        return range(start, min(self.ceiling(segment), start + cap))

    def test_due(self, boundary: int) -> float | None:
        """The threshold the live token is tested against at an exit it has arrived at, or None where it is not tested.

        No exit is tested during replay, for the last prompt token, twice, or while `recompute` owes a full pass.
        """
        if not self.exits_on or self.exit is None or self.replaying or boundary <= self.failed:
            return None
        if self.live < self.prompt_length or self.frontier[boundary - 1] < self.length or self.full_pass_due:
            return None
        return self.exit.threshold_at(self.shape.exit_layers[boundary - 1], self.num_output / self.max_tokens)

    @property
    def full_pass_due(self) -> bool:
        """`recompute`: whether as many tokens in a row as the cap allows were chosen at exits."""
        if self.exit is None or not self.recomputes:
            return False
        cap = self.exit.recompute_cap
        return len(self.marks) >= cap and all(m < self.top for m in self.marks[-cap:])

    def choice_due(self) -> range:
        """Positions that have reached the top and have not been used there: the live token's, or drafts to check."""
        if self.replaying:
            return range(0)
        start = self.accepted - 1 if self.verifies else self.live
        return range(start, min(self.frontier[-1], self.length))

    # What happened

    def advance(self, segment: int, stop: int) -> None:
        """The tokens below `stop` ran, or passed, the segment."""
        start = self.frontier[segment]
        if segment == self.top - 1 and start < stop and not self.replaying:
            self.top_passes += 1
        self.frontier[segment] = stop
        if segment == 0:
            self.replayed_tokens += max(0, min(self.reached[0], stop) - start)
        self.reached[segment] = max(self.reached[segment], stop)

    def filled(self) -> None:
        """All exited tokens passed all remaining segments."""
        self.frontier = [max(f, self.live) for f in self.frontier]
        self.reached = [max(r, self.live) for r in self.reached]

    def skip_to(self, num_tokens: int) -> None:
        """A prefix-cache hit: `num_tokens` are written everywhere."""
        self.frontier = [max(f, num_tokens) for f in self.frontier]

    def share_prompt(self) -> None:
        """A sibling has written the whole prompt, and its last token has reached the top."""
        self.skip_to(self.prompt_length)
        self.reached = [max(r, self.prompt_length) for r in self.reached]
        self.cached_prompt_tokens = self.prompt_length

    def fail(self, boundary: int, signals: Signals | None) -> None:
        """The live token was tested at an exit and stays."""
        self.failed = boundary
        if signals is not None:
            self.earlier = (*self.earlier, signals)

    def choose(self, boundary: int, token: int, confidence: float | None) -> None:
        """The live token's successor was chosen: a draft, if this sequence verifies and the boundary is an exit."""
        if boundary < self.top:
            if self.first_exit is None:
                self.first_exit = self.live
            self.drafts_proposed += self.verifies
        self.tokens.append(token)
        self.marks.append(boundary)
        self.confidences.append(confidence)
        self._new_live()
        if not (self.verifies and boundary < self.top):
            self.accepted = self.length

    def accept(self) -> None:
        """The top agrees with the oldest draft."""
        self.accepted += 1
        self.drafts_accepted += 1

    def replace(self, token: int) -> None:
        """The top disagrees with the oldest draft: it and everything built on it are cut back."""
        self.cut_back(self.accepted)
        self.tokens.append(token)
        self.marks.append(self.top)
        self.confidences.append(None)
        self.accepted += 1

    def cut_back(self, length: int) -> None:
        """Forget all tokens from `length` on, if any."""
        output = length - self.prompt_length
        del self.tokens[length:], self.marks[output:], self.confidences[output:]
        self.frontier = [min(f, length) for f in self.frontier]
        self.reached = [min(r, length) for r in self.reached]
        self._new_live()

    def _new_live(self) -> None:
        self.failed, self.earlier = 0, ()

    def preempt(self) -> None:
        """Give up KV and unverified drafts; what was decided stays and will be replayed, not decided anew."""
        if self.num_drafts:
            self.cut_back(self.accepted)
            self.frontier = [min(f, self.live) for f in self.frontier]
        if not self.replaying:
            self.replay_to = self.frontier
        self.frontier = [0] * self.top
        self.close()

    def close(self) -> None:
        """Give the blocks back; may be called twice."""
        if self.lease is not None:
            self.lease.close()
        self.lease = None

    # How it ends, and what it cost

    def ends_with(self, length: int) -> bool:
        """Whether the request is over once its first `length` tokens are output (stop strings aside)."""
        return length - self.prompt_length >= self.max_tokens or self.stops_at(length)

    def stops_at(self, length: int) -> bool:
        """Whether the last of the first `length` tokens is one that ends the request."""
        return length - self.prompt_length > self.sampling.min_tokens and self.tokens[length - 1] in self.stop_ids

    def end_at(self, length: int) -> None:
        """The output ends with the first `length` tokens; what was drafted or accepted beyond them is cut back."""
        if self.verifies:
            self.drafts_accepted -= sum(self.mark(p) < self.top for p in range(length - 1, self.accepted - 1))
        self.cut_back(length)
        self.accepted = length

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end this request."""
        eos = () if self.sampling.ignore_eos else self.shape.eos_token_ids
        return (*eos, *self.sampling.stop_token_ids)
