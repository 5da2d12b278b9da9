"""Measured time: where it goes, what steps cost, and whether exits pay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import ClassVar, TypeVar

from offramp.engine.costs import CostModel
from offramp.engine.sequence import Sequence as TokenSequence
from offramp.types.executor import Executor, SeqRows, SourceRows
from offramp.types.exits import KVPolicy

T = TypeVar("T")


@dataclass
class Account:
    """What exits under one KV policy have saved and cost at loads of one size, in seconds, the recent past counting
    more.

    Nothing is decided before `decide_at` tokens. While the balance is negative exits are off. After so much time that
    what was lost is `SHARE` of it, the next request begins a trial: a new balance, and exits on for everybody until it
    can be judged.
    """

    saved: float = 0.0
    spent: float = 0.0
    tokens: int = 0
    decide_at: int = 64
    retry_at: float | None = None

    TRIAL: ClassVar[int] = 64
    FADE: ClassVar[float] = 0.998
    SHARE: ClassVar[float] = 0.01

    def token(self) -> None:
        """One more token was chosen under this policy."""
        self.saved *= self.FADE
        self.spent *= self.FADE
        self.tokens += 1

    @property
    def pays(self) -> bool:
        """Whether the balance is positive, or too little is known."""
        return self.tokens < self.decide_at or self.saved >= self.spent

    def admit(self, now: float) -> bool:
        """Whether the next request gets its exits; `now` is the time spent so far. Begins a trial when it is due."""
        if self.pays:
            return True
        if self.retry_at is None:
            self.retry_at = now + (self.spent - self.saved) / self.SHARE
        if now < self.retry_at:
            return False
        self.saved = self.spent = 0.0
        self.decide_at, self.retry_at = self.tokens + self.TRIAL, None
        return True


@dataclass
class TimeSplit:
    """Seconds spent so far, by what they were spent on."""

    encoder: float = 0.0
    layers: float = 0.0
    checks: float = 0.0
    fill: float = 0.0
    top: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.encoder + self.layers + self.checks + self.fill + self.top


@dataclass
class Meter:
    """Times every executor call. With `switching` false nothing is learned: prices stay, exits stay on.

    `live` is how many sequences there are to run. What pays with one need not pay with eight, so each KV policy has an
    account for one, for two and three, for four to seven, and so on.
    """

    executor: Executor
    costs: CostModel
    switching: bool = True
    time: TimeSplit = field(default_factory=TimeSplit)
    accounts: dict[tuple[KVPolicy, int], Account] = field(default_factory=lambda: defaultdict(Account))
    live: int = 1

    def account(self, kv: KVPolicy) -> Account:
        """That of a policy at the present load."""
        return self.accounts[kv, self.live.bit_length()]

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Encode sources."""
        seconds = self._timed(lambda: self.executor.encode(batch))[1]
        self.time.encoder += seconds
        if self.switching:
            self.costs.encoder.observe(sum([len(rows.tokens) for rows in batch]), seconds)

    def run_segment(self, segment: int, batch: Sequence[SeqRows], rows: int, verifying: int, recomputed: int) -> None:
        """Run `rows` rows; `verifying` and `recomputed` of them are owed to exits under those policies."""
        seconds = self._timed(lambda: self.executor.run_segment(segment, batch))[1]
        self.time.layers += seconds
        if verifying:
            self.account("verify").spent += seconds * verifying / rows
        if recomputed:
            self.account("recompute").spent += self.costs.segments[segment].b * recomputed
        if self.switching:
            self.costs.segments[segment].observe(rows, seconds)

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        """Pass tokens; the time is owed to exits under `fill`."""
        rows = sum(len(r.positions) for r in batch)
        seconds = self._timed(lambda: self.executor.pass_tokens(boundary, segments, batch))[1]
        self.time.fill += seconds
        self.account("fill").spent += seconds
        if self.switching and segments.stop == len(self.costs.segments):
            self.costs.passes[boundary - 1].observe(rows, seconds)

    def check(self, boundary: int, call: Callable[[], T], sequences: Sequence[TokenSequence]) -> T:
        """Test exits; the time is owed to the policies of the sequences tested."""
        result, seconds = self._timed(call)
        self.time.checks += seconds
        for sequence in sequences:
            assert sequence.exit is not None
            self.account(sequence.exit.kv).spent += seconds / len(sequences)
        if self.switching:
            self.costs.checks[boundary - 1].observe(len(sequences), seconds)
        return result

    def top(self, call: Callable[[], T], rows: int, verifying: int) -> T:
        """Choose at the top; `verifying` of the rows check drafts."""
        result, seconds = self._timed(call)
        self.time.top += seconds
        self.account("verify").spent += seconds * verifying / rows
        if self.switching:
            self.costs.checks[-1].observe(rows, seconds)
        return result

    def prompts(self, call: Callable[[], T]) -> T:
        """Score prompts at the top; nothing is learned from it about the price of a choice."""
        result, seconds = self._timed(call)
        self.time.top += seconds
        return result

    def worth_leaving(self, boundary: int) -> float:
        """The price of what lies above an exit, for one sequence of the present batch."""
        above = range(boundary, len(self.costs.segments))
        return (self.costs.climb(above, self.live) + self.costs.checks[-1].price(self.live)) / self.live

    def left(self, sequence: TokenSequence, worth: float) -> None:
        """A sequence left at an exit: what lies above it is saved. Drafts save nothing until they are accepted."""
        assert sequence.exit is not None
        if not sequence.verifies:
            self.account(sequence.exit.kv).saved += worth

    def accepted(self, sequence: TokenSequence, count: int, first: bool) -> None:
        """Tokens became output, the `first` of all among them or not. Under `verify` each is worth what it would have
        cost at full depth: the first, behind its prompt, no more than the top's check."""
        if sequence.exit is None or not sequence.exits_on:
            return
        account = self.account(sequence.exit.kv)
        for _ in range(count):
            account.token()
        if sequence.verifies:
            own = 1 if first and count else 0
            price = (count - own) * self.costs.full_depth(self.live) + own * self.costs.checks[-1].price(self.live)
            account.saved += price / self.live

    def exits_pay(self, sequence: TokenSequence) -> bool:
        """Whether a request about to be admitted should use its exits."""
        if not self.switching or sequence.exit is None:
            return sequence.exit is not None
        return self.account(sequence.exit.kv).admit(self.time.total)

    def verify_pays(self) -> bool:
        """Whether running `verify` sequences should go on drafting."""
        return not self.switching or self.account("verify").pays

    def _timed(self, call: Callable[[], T]) -> tuple[T, float]:
        start = perf_counter()
        result = call()
        self.executor.synchronize()
        return result, perf_counter() - start
