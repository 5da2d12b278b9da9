"""One request under way, from the definitions.

A token climbs layer by layer. It may leave at an exit; what happens to the K and V of the layers it skipped is the KV
policy. There are no frontiers here: each position only remembers its hidden state and how many layers it has run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.model import Array, Model
from tests.oracle.scoring import Context, Opinion, choose_at_top, confidence, draft_floor, opinion, threshold


@dataclass
class Choice:
    """A token, the layer that proposed it, and the criterion's confidence there (None at the top)."""

    token: int
    layer: int
    confidence: float | None


@dataclass
class Result:
    """What a request gave.

    `keys` and `values` are [layers, positions, *kv_shape], NaN where never written; `filled` [layers, positions]
    marks K and V projected from an unchanged hidden state. `layers_run`, `layers_filled` and `layers_skipped` count,
    per output token, the layers of the position that chose it. `drafts_proposed`, `drafts_accepted` and `top_passes`
    are zero unless the policy is `verify`.
    """

    tokens: list[int]
    exit_layers: list[int]
    confidences: list[float | None]
    finish_reason: str
    keys: Array
    values: Array
    filled: Array
    layers_run: list[int]
    layers_filled: list[int]
    layers_skipped: list[int]
    drafts_proposed: int
    drafts_accepted: int
    top_passes: int


@dataclass
class Run:
    """One request under way. Positions 0.. have a hidden state in `hidden` and the number of layers run in `depth`;
    `deep` has what each position's choice was made from; `drafts` wait for the top."""

    model: Model
    prompt: list[int]
    sampling: SamplingParams
    exit: ExitParams | None = None
    output: list[Choice] = field(default_factory=list)
    hidden: dict[int, Array] = field(default_factory=dict)
    depth: dict[int, int] = field(default_factory=dict)
    deep: dict[int, Array] = field(default_factory=dict)
    drafts: list[Choice] = field(default_factory=list)
    finish_reason: str | None = None
    drafts_proposed: int = 0
    drafts_accepted: int = 0
    top_passes: int = 0

    def __post_init__(self) -> None:
        length = self.model.max_model_len
        room = length - len(self.prompt)
        wanted = self.sampling.max_tokens
        self.max_tokens = room if wanted is None else min(wanted, room)
        eos = () if self.sampling.ignore_eos else self.model.eos_token_ids
        self.ends = {*eos, *self.sampling.stop_token_ids}
        written = (self.model.num_layers, length)
        self.keys, self.values = (np.full((*written, *self.model.kv_shape), np.nan) for _ in range(2))
        self.filled = np.zeros(written, dtype=bool)

    @property
    def live(self) -> int:
        """The position whose hidden state chooses the next token."""
        return len(self.prompt) + len(self.output) - 1

    def prefill(self) -> None:
        """Run the prompt to the top; the first token is always chosen there."""
        self.start(range(len(self.prompt)))
        self.climb(self.model.num_layers)
        self.accept(self.top_choice(self.live))

    def start(self, positions: range) -> None:
        """Embed the tokens at `positions`."""
        tokens = self.prompt + [choice.token for choice in self.output]
        for position in positions:
            self.hidden[position] = self.model.embed([tokens[position]])[0]
            self.depth[position] = 0

    def climb(self, layers: int, only: int | None = None) -> None:
        """Run every position that has run fewer than `layers` layers up to there (or `only` that position)."""
        for layer in range(layers):
            rows = [p for p in sorted(self.depth) if self.depth[p] == layer and only in (None, p)]
            if rows:
                hidden = np.stack([self.hidden[p] for p in rows])
                hidden = self.model.run(layer, hidden, rows, self.keys[layer], self.values[layer])
                for row, position in enumerate(rows):
                    self.hidden[position], self.depth[position] = hidden[row], layer + 1

    def fill(self) -> None:
        """Write K and V above every token that left early, from its unchanged hidden state (CALM)."""
        for position in range(self.live):
            for layer in range(self.depth[position], self.model.num_layers):
                if not self.filled[layer, position]:
                    key, value = self.model.key_value(layer, self.hidden[position][None], [position])
                    self.keys[layer, position], self.values[layer, position] = key[0], value[0]
                    self.filled[layer, position] = True

    def context(self, position: int) -> Context:
        """What the choice made at `position` may look at."""
        index = position + 1 - len(self.prompt)
        output = [choice.token for choice in self.output[:index]]
        banned = self.ends if index < self.sampling.min_tokens else set()
        assert self.sampling.seed is not None, "the oracle needs a seed"
        return Context(self.prompt, output, self.sampling, self.sampling.seed, banned)

    def top_choice(self, position: int) -> Choice:
        self.deep[position] = self.hidden[position]
        token = choose_at_top(self.model, self.hidden[position], self.context(position))
        assert token is not None, "no token is left to choose"
        return Choice(token, self.model.num_layers, None)

    def accept(self, choice: Choice) -> None:
        """`choice` becomes output, and may end the request."""
        self.output.append(choice)
        self.finish_reason = self.reason_to_finish()

    def reason_to_finish(self) -> str | None:
        if self.output[-1].token in self.ends:
            return "stop"
        return "length" if len(self.output) == self.max_tokens else None

    def exits_in_a_row(self) -> int:
        """How many of the latest tokens were chosen at exits, back to the last one chosen at the top."""
        count = 0
        for choice in reversed(self.output):
            if choice.layer == self.model.num_layers:
                break
            count += 1
        return count

    def next_choice(self) -> Choice:
        """Let the live token climb until an exit is sure enough, or to the top."""
        attempt = Attempt(self)
        only = self.live if self.exit and self.exit.kv == "fill" else None
        for boundary, layer in enumerate(self.model.exit_layers, start=1):
            self.climb(layer, only)
            choice = attempt.test(boundary, layer)
            if choice is not None:
                return choice
            self.before_climbing_past(layer)
        self.climb(self.model.num_layers, only)
        return self.top_choice(self.live)

    def before_climbing_past(self, layer: int) -> None:
        """Under `fill`, a token climbs past an exit once all that left there or below, if any, are filled to the top,
        and with them whatever has left further up."""
        left_below = any(self.depth[p] <= layer and not self.filled[layer, p] for p in range(self.live))
        if self.exit and self.exit.kv == "fill" and left_below:
            self.fill()

    def result(self) -> Result:
        assert self.finish_reason is not None
        chose = range(len(self.prompt) - 1, self.live)
        depth, filled = [self.depth[p] for p in chose], [int(self.filled[:, p].sum()) for p in chose]
        return Result(
            tokens=[choice.token for choice in self.output],
            exit_layers=[choice.layer for choice in self.output],
            confidences=[choice.confidence for choice in self.output],
            finish_reason=self.finish_reason,
            keys=self.keys[:, : self.live],
            values=self.values[:, : self.live],
            filled=self.filled[:, : self.live],
            layers_run=depth,
            layers_filled=filled,
            layers_skipped=[self.model.num_layers - d - f for d, f in zip(depth, filled, strict=True)],
            drafts_proposed=self.drafts_proposed,
            drafts_accepted=self.drafts_accepted,
            top_passes=self.top_passes,
        )


class Attempt:
    """The live token of a run on its way up: what the exits it was tested at said so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.opinions: list[Opinion] = []
        self.below: Array | None = None
        exit = run.exit
        self.forced = exit is None or (exit.kv == "recompute" and run.exits_in_a_row() >= exit.recompute_cap)

    def needed(self, layer: int) -> float | None:
        """The confidence it takes to leave at the exit after `layer`; None where the token is not tested."""
        if self.forced or self.run.exit is None:
            return None
        drafts = [draft.confidence for draft in self.run.drafts if draft.confidence is not None]
        needed = threshold(self.run.exit, layer, len(self.run.output), self.run.max_tokens)
        if needed is None or self.run.exit.kv != "verify":
            return needed
        return max(needed, draft_floor(self.run.exit, drafts))

    def test(self, boundary: int, layer: int, *, skip: bool = False) -> Choice | None:
        """The choice made at this exit, or None where the token climbs on. To be called at every exit, lowest first."""
        run = self.run
        hidden, previous = run.hidden[run.live], self.below
        self.below = hidden
        needed = self.needed(layer)
        if needed is None or run.exit is None or skip:
            return None
        past = run.deep[run.live - 1]
        self.opinions.append(opinion(run.model, boundary, hidden, previous, past, run.context(run.live)))
        sure = confidence(run.exit, layer, len(run.output), self.opinions)
        token = self.opinions[-1].token
        if sure is None or token is None or sure < needed:
            return None
        run.deep[run.live] = self.opinions[-1].state
        return Choice(token, layer, sure)
