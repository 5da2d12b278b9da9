"""Traffic on an engine: so many clients that each ask again when they have their answer, or requests that arrive by
the clock. Every token's time is noted, and what its exit said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from time import perf_counter, sleep

from offramp.engine.decide import Test
from offramp.errors import OfframpError
from offramp.llm.session import Session
from offramp.types.exits import ExitParams
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

Prompts = Sequence[tuple[int, ...]]


@dataclass
class Stretch:
    """What traffic took and gave. Times are in seconds and are those of the time that counts.

    Args:
        outputs: one for each prompt, in their order, those that ended too late to count included.
        tokens: that came.
        seconds: that it took.
        first: from asking to the first token, for each request that got one.
        gaps: from a token to the next one of the same output.
        split: where the time went: layers, top, checks, fill.
        idle: with nothing to do.
        held: tokens, of all outputs, that passed their test at an exit and had to climb on.
        forced: tokens, of all outputs, that left below their own threshold.
    """

    outputs: list[Output] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    split: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    held: int = 0
    forced: int = 0


def ask_in_turns(
    session: Session, prompts: Prompts, sampling: SamplingParams, exit: ExitParams | None, clients: int
) -> Stretch:
    """Each of `clients` asks, and asks again when it has its answer. Time counts until one of them finds no prompt."""
    traffic = _Traffic(session, sampling, exit)
    coming = deque(enumerate(prompts))
    for _ in range(min(clients, len(coming))):
        traffic.ask(*coming.popleft())
    while traffic.live:
        for _ in range(traffic.step()):
            if coming:
                traffic.ask(*coming.popleft())
            else:
                traffic.stop_clock()
    return traffic.stretch()


def ask_by_the_clock(
    session: Session, prompts: Prompts, sampling: SamplingParams, exit: ExitParams | None, times: Sequence[float]
) -> Stretch:
    """Each prompt comes at its time, in seconds from the start, which do not descend. All of the time counts."""
    traffic = _Traffic(session, sampling, exit)
    coming = deque(zip(enumerate(prompts), times, strict=True))
    while coming or traffic.live:
        now = traffic.clock()
        while coming and coming[0][1] <= now:
            (place, prompt), due = coming.popleft()
            traffic.ask(place, prompt, due)
        if traffic.live:
            traffic.step()
        else:
            traffic.rest_until(coming[0][1])
    traffic.stop_clock()
    return traffic.stretch()


def poisson_times(count: int, rate: float, seed: str) -> list[float]:
    """When `count` requests arrive that come at random, `rate` a second: a Poisson process, the same for a seed."""
    draw, now, times = Random(seed), 0.0, []
    for _ in range(count):
        times.append(now)
        now += draw.expovariate(rate)
    return times


class _Traffic:
    """Requests under way, and what was seen of them."""

    def __init__(self, session: Session, sampling: SamplingParams, exit: ExitParams | None) -> None:
        self._session, self._sampling, self._exit = session, sampling, exit
        session.engine.on_test = self._note_test
        self._places: dict[int, int] = {}
        self._asked: dict[int, float] = {}
        self._latest: dict[int, float] = {}
        self._passed: dict[tuple[int, int], int] = {}
        self._outputs: dict[int, Output] = {}
        self._stretch = Stretch()
        self._counts = True
        self._start = perf_counter()

    @property
    def live(self) -> int:
        """Requests that have not ended."""
        return len(self._asked)

    def clock(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._start

    def ask(self, place: int, prompt: tuple[int, ...], due: float | None = None) -> None:
        """Ask for prompt number `place`, which was to be asked at `due`."""
        asked = self.clock() if due is None else due
        number = self._session.submit(list(prompt), self._sampling, self._exit or "off")[0]
        self._places[number], self._asked[number] = place, asked

    def step(self) -> int:
        """One step of the engine; how many requests ended in it."""
        result = self._session.step()
        now, seen = self.clock(), self._stretch
        for event in result.events:
            before = self._latest.get(event.sequence)
            if self._counts:
                seen.tokens += 1
                if before is None:
                    seen.first.append(now - self._asked[event.sequence])
                else:
                    seen.gaps.append(now - before)
            self._latest[event.sequence] = now
        for number, _ in result.finished:
            self._take(number)
        return len(result.finished)

    def rest_until(self, due: float) -> None:
        """Do nothing until then."""
        before = self.clock()
        sleep(max(0.0, due - before))
        self._stretch.idle += self.clock() - before

    def stop_clock(self) -> None:
        """What comes from now on does not count. May be called twice."""
        if self._counts:
            self._counts = False
            self._stretch.seconds = self.clock()
            self._stretch.split = asdict(self._session.engine.meter.time)

    def stretch(self) -> Stretch:
        """Everything, once nothing is live."""
        self._stretch.outputs = [self._outputs[place] for place in sorted(self._outputs)]
        return self._stretch

    def _note_test(self, test: Test) -> None:
        if test.fired:
            self._passed.setdefault((test.sequence.number, test.signals.output_index), test.signals.layer)

    def _take(self, number: int) -> None:
        chunk = self._session.read(number)
        assert chunk is not None and chunk.output is not None, "an output that has ended can be read"
        output = chunk.output
        if output.finish_reason == "error":
            raise OfframpError("the model gave no finite number for a prompt", hint="check its weights")
        self._outputs[self._places[number]] = output
        self._session.drop(number)
        del self._asked[number]
        if self._exit is not None:
            self._judge_exits(number, output, self._exit)

    def _judge_exits(self, number: int, output: Output, exit: ExitParams) -> None:
        """Under `verify` a token whose test passed lower was a draft that the top rejected: nobody held it."""
        most = self._sampling.max_tokens
        assert most is not None, "answers have a limit here"
        for place, (layer, confidence) in enumerate(zip(output.exit_layers, output.confidences, strict=True)):
            passed = self._passed.get((number, place), layer)
            self._stretch.held += exit.kv != "verify" and passed < layer
            if confidence is not None:
                threshold = exit.threshold_at(layer, place / most)
                self._stretch.forced += threshold is None or confidence < threshold
