"""A sequence and its frontiers: all the arithmetic of early exit, and nothing else.

`frontier[s]` counts the tokens whose KV is written in segment s; frontiers fall with s. The *live* token is the
newest. `marks` say at which boundary each output token was chosen; the position before an output token carries its
mark. Prefill, replay after preemption, decoding, filling, recomputation and verification are all "advance segment s
over the oldest tokens of [frontier[s], frontier[s-1])"; this file says which of them are due.
"""

from __future__ import annotations

from offramp.engine.blocks import Lease
from offramp.engine.guide import Guide
from offramp.engine.prompts import PromptScores
from offramp.engine.sources import SharedSource
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
        self.number, self.prompt_length, self.tokens = number, len(prompt), list(prompt)
        self.sampling, self.seed = sampling, seed
        self.shape, self.exit, self.criterion, self.exits_on = shape, exit, criterion, exit is not None
        kv = None if exit is None else exit.kv
        self.fills = kv == "fill"  # exited tokens pass the remaining segments
        self.recomputes = kv == "recompute"  # exited tokens run later, with the next token that climbs
        self.verifies = kv == "verify"  # tokens chosen at exits are drafts
        self.top, self.layers_at = shape.num_segments, shape.layers_at  # the top is the boundary S + 1
        self.stop_ids = (*(() if sampling.ignore_eos else shape.eos_token_ids), *sampling.stop_token_ids)
        self._thresholds: list[float | None] | None = None
        if exit is not None and exit.decay is None:
            self._thresholds = [exit.threshold_at(layer, 0.0) for layer in shape.exit_layers]
        self.accepted, self.failed = len(prompt), 0
        self.marks: list[int] = []
        self.confidences: list[float | None] = []
        self.earlier: tuple[Signals, ...] = ()
        self.first_exit: int | None = None
        self.frontier, self.reached = [0] * self.top, [0] * self.top
        self.replay_to, self._replayed = [len(prompt)] * self.top, False
        self.lease: Lease | None = None
        self.source: SharedSource | None = None  # what cross-attention reads, under an encoder
        self.parent: Sequence | None = None
        self.guide: Guide | None = None  # allows tokens, where the output is constrained
        self.past: object = None  # deep state of the token before the live one, kept while its slot is not written
        self.prompt_scores = PromptScores(len(prompt), None)
        self.finish_reason: FinishReason | None = None
        self.fault: str | None = None  # what went wrong, where it finished for that
        self.switched_off, self.due, self.cached_prompt_tokens = False, 0.0, 0
        self.drafts_proposed = self.drafts_accepted = self.top_passes = self.replayed_tokens = self.encoded_tokens = 0
        room = min(shape.max_model_len, shape.num_blocks * shape.block_size) - len(prompt)
        self.max_tokens = room if sampling.max_tokens is None else min(sampling.max_tokens, room)

    # What it is

    @property
    def length(self) -> int:
        """Tokens, drafts included."""
        return len(self.tokens)

    @property
    def live(self) -> int:
        """Position of the newest token."""
        return len(self.tokens) - 1

    @property
    def num_output(self) -> int:
        """Tokens chosen so far, drafts included."""
        return len(self.marks)

    @property
    def drafts(self) -> bool:
        """Whether this sequence verifies and has not been switched off."""
        return self.verifies and self.exits_on

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
        """Whether prompt tokens, or tokens from before a preemption, are still on their way to where they belong.

        Once they have arrived they stay: nothing but a preemption takes them back.
        """
        if not self._replayed:
            self._replayed = all(f >= target for f, target in zip(self.frontier, self.replay_to, strict=True))
        return not self._replayed

    @property
    def drafts_end(self) -> bool:
        """Whether there are as many drafts as may be: the live token goes to the top with them, and is not tested."""
        return self.verifies and self.exit is not None and self.num_drafts >= self.exit.max_draft

    @property
    def draft_ends(self) -> bool:
        """Whether the newest draft would end the request: it is checked before it is begun."""
        return self.verifies and self.num_drafts > 0 and self.end_reason(self.length) is not None

    def next_rows(self, cap: int) -> tuple[int, int, int]:
        """The segment this sequence needs next and its rows there, (segment, start, stop), oldest first, at most `cap`.

        A replay finishes what it began (deepest first), so that a chunk reaches its place before the next one
        starts; a live token climbs (lowest first) and takes the pending tokens it needs along, unless they are to
        be filled before it. There are no rows while the sequence waits to be scored.
        """
        length, frontier = len(self.tokens), self.frontier
        if self.replaying:
            for segment in range(self.top - 1, -1, -1):
                start = frontier[segment]
                stop = min(frontier[segment - 1] if segment else length, self.replay_to[segment])
                if start < stop:
                    return segment, start, min(stop, start + cap)
        stop = length - 1 if self.draft_ends else length
        for segment, start in enumerate(frontier):
            if start < stop:
                if segment and self.fills:
                    start = length - 1
                return segment, start, stop if stop - start < cap else start + cap
        return self.top - 1, frontier[-1], frontier[-1]

    def climbs_freely(self, segment: int, stop: int) -> bool:
        """Whether the rows up to `stop` that advance `segment` will go on to the top just as they are.

        All segments above are as far, none of the rows passes, and no exit is tested on the way.
        """
        tested = self.exits_on and self.marks and stop == self.length and not self.drafts_end
        short = self.replaying and self.replay_to[-1] < stop
        if tested or short or self.frontier[-1] != self.frontier[segment]:
            return False
        return not self.fills or self.first_exit is None or stop <= self.first_exit

    def test_due(self, boundary: int) -> float | None:
        """The threshold the live token is tested against at an exit it has arrived at; None where it is not tested: in
        a replay, for the last prompt token, twice, when `recompute` owes a full pass or the `drafts_end`."""
        if not self.exits_on or self.exit is None or not self.marks or boundary <= self.failed:
            return None
        if self.frontier[boundary - 1] < len(self.tokens) or self.replaying or self.full_pass_due or self.drafts_end:
            return None
        layer, kept = self.shape.exit_layers[boundary - 1], self._thresholds
        threshold = kept[boundary - 1] if kept else self.exit.threshold_at(layer, self.num_output / self.max_tokens)
        if threshold is None or not self.verifies:
            return threshold
        return max(threshold, self.exit.draft_floor(self.confidences[self.accepted - self.prompt_length :]))

    @property
    def full_pass_due(self) -> bool:
        """`recompute`: whether as many tokens in a row as the cap allows were chosen at exits."""
        if self.exit is None or not self.recomputes:
            return False
        cap = self.exit.recompute_cap
        return len(self.marks) >= cap and self.top not in self.marks[-cap:]

    def choice_due(self) -> range:
        """Positions at the top that have not been used there: the live token's, or drafts to check."""
        if self.replaying or not self.prompt_scores.complete:
            return range(0)
        length, reached = len(self.tokens), self.frontier[-1]
        start = self.accepted - 1 if self.verifies else length - 1
        return range(start, reached if reached < length else length)

    # What happened

    def advance(self, segment: int, stop: int) -> None:
        """The tokens below `stop` ran, or passed, the segment."""
        start = self.frontier[segment]
        if segment == self.top - 1 and start < stop and not self.replaying:
            self.top_passes += 1
        self.frontier[segment] = stop
        reached = self.reached[segment]
        if segment == 0 and start < reached:
            self.replayed_tokens += min(reached, stop) - start
        self.reached[segment] = max(reached, stop)

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

    def fail(self, boundary: int, signals: Signals) -> None:
        """The live token was tested at an exit and stays."""
        self.failed, self.earlier = boundary, (*self.earlier, signals)

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
        if self.guide is not None:
            self.guide.cut_back(length)
        self._new_live()

    def _new_live(self) -> None:
        self.failed, self.earlier, self.past = 0, (), None

    def preempt(self) -> None:
        """Give up KV, source and unverified drafts; what was decided stays and will be replayed, not decided anew."""
        if self.num_drafts:
            self.cut_back(self.accepted)
            self.frontier = [min(f, self.live) for f in self.frontier]
        if not self.replaying:
            self.replay_to = self.frontier
        self.frontier, self._replayed = [0] * self.top, False
        self.close()

    def restore(self, frontier: list[int]) -> None:
        """Back to earlier frontiers: a step that moved them broke off."""
        self.frontier, self._replayed = frontier, False

    def close(self) -> None:
        """Give the blocks back; may be called twice."""
        if self.lease is not None:
            self.lease.close()
        if self.source is not None:
            self.source.release(self.number)
        self.lease = None

    # How it ends, and what it cost

    def end_reason(self, length: int) -> FinishReason | None:
        """Why the request is over once its first `length` tokens are output, if it is (stop strings aside)."""
        count = length - self.prompt_length
        if count > self.sampling.min_tokens and self.tokens[length - 1] in self.stop_ids:
            return "stop"
        return "length" if count >= self.max_tokens else None

    def end_at(self, length: int) -> None:
        """The output ends with the first `length` tokens; what was drafted or accepted beyond them is cut back."""
        if self.verifies:
            self.drafts_accepted -= sum(self.mark(p) < self.top for p in range(length - 1, self.accepted - 1))
        self.cut_back(length)
        self.accepted = length
