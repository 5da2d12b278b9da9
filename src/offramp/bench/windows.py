"""A stretch of steady decoding: B sequences live throughout, timed, with a log of every call to the executor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from offramp.bench.exit_traces import ExitTrace
from offramp.bench.prices import PriceTable
from offramp.config import Batching, EngineConfig
from offramp.engine.costs import CostModel
from offramp.engine.engine import Engine
from offramp.engine.request import Request
from offramp.types.executor import Executor, Feature, ModelShape, Scored, ScoreRow, SeqRows, SourceRows
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams

WARM_TOKENS = 8
"""Tokens for each sequence before the clock starts."""


class CallLog:
    """An executor that passes every call on and notes it: (segment, rows) that ran, (boundary, rows) that chose."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.runs: Counter[tuple[int, int]] = Counter()
        self.choices: Counter[tuple[int, int]] = Counter()

    def clear(self) -> None:
        """Forget what was noted."""
        self.runs.clear()
        self.choices.clear()

    @property
    def shape(self) -> ModelShape:
        """Of the executor behind."""
        return self._executor.shape

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Pass on."""
        self._executor.encode(batch)

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        """Pass on and note."""
        self.runs[segment, sum(len(rows.positions) for rows in batch)] += 1
        self._executor.run_segment(segment, batch)

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        """Pass on."""
        self._executor.pass_tokens(boundary, segments, batch)

    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        """Pass on, and note choices."""
        if choose:
            self.choices[boundary, len(rows)] += 1
        return self._executor.score(boundary, rows, needs, choose=choose)

    def read_state(self, position: int, blocks: Sequence[int]) -> object:
        """Pass on."""
        return self._executor.read_state(position, blocks)

    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        """Pass on."""
        self._executor.write_state(position, blocks, state)

    def features_at(self, boundary: int) -> frozenset[Feature]:
        """Pass on."""
        return self._executor.features_at(boundary)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Pass on."""
        self._executor.copy_blocks(pairs)

    def synchronize(self) -> None:
        """Pass on."""
        self._executor.synchronize()


@dataclass(frozen=True)
class Window:
    """What a stretch took and did. `wanted` counts tokens by the layer their trace names (the top without exits)."""

    tokens: int
    seconds: float
    split: dict[str, float]
    runs: dict[tuple[int, int], int]
    choices: dict[tuple[int, int], int]
    wanted: dict[int, int]

    @property
    def per_token(self) -> float:
        """Seconds."""
        return self.seconds / self.tokens

    def priced(self, table: PriceTable, *, exit_choices: bool) -> float:
        """Seconds a token by the table, with fill, Python and tests free; choices at exits free or not."""
        top = len(table.choices)
        layers = sum(count * table.segments[s].price(rows) for (s, rows), count in self.runs.items())
        choices = sum(
            count * table.choices[k - 1].price(rows)
            for (k, rows), count in self.choices.items()
            if exit_choices or k == top
        )
        return (layers + choices) / self.tokens

    def priced_at_full_batch(self, table: PriceTable, layers_at: Sequence[int], batch: int) -> float:
        """The same tokens, left where their trace says, if every segment and the top always ran `batch` rows."""
        seconds = 0.0
        for layer, count in self.wanted.items():
            segments = sum(below < layer for below in layers_at[:-1])
            seconds += count * sum(table.segments[s].price(batch) for s in range(segments)) / batch
            if layer == layers_at[-1]:
                seconds += count * table.choices[-1].price(batch) / batch
        return seconds / sum(self.wanted.values())


def run_window(
    executor: Executor,
    costs: CostModel,
    policy: Batching,
    prompts: Sequence[list[int]],
    trace: ExitTrace | None,
    new_tokens: int,
) -> Window:
    """Decode `new_tokens` tokens for each prompt on average, leaving where `trace` says; None runs every layer.

    The switch that turns unprofitable exits off is off, and prices stay as they are.
    """
    log = CallLog(executor)
    batch = len(prompts)
    config = EngineConfig(
        batching=policy,
        max_num_seqs=batch,
        max_num_batched_tokens=max(512, batch),
        prefix_caching=False,
        profitability=False,
    )
    engine = Engine(log, config, costs)
    most = most_tokens(new_tokens)
    sampling = SamplingParams(max_tokens=most, ignore_eos=True)
    depth = executor.shape.num_layers
    layers: list[tuple[int, ...]] = []
    for row, prompt in enumerate(prompts):
        layers.append((depth,) * most if trace is None else trace.rows(row, most))
        engine.submit(Request(prompt, sampling, None if trace is None else replay(layers[row])))
    ahead: Counter[int] = Counter()
    while len(ahead) < batch or min(ahead.values()) < 1 or ahead.total() < batch * WARM_TOKENS:
        ahead.update(event.sequence for event in engine.step().events)
    log.clear()
    before = asdict(engine.meter.time)
    wanted: Counter[int] = Counter()
    tokens, start = 0, perf_counter()
    ended = False
    while tokens < batch * new_tokens and not ended:
        result = engine.step()
        events, ended = result.events, bool(result.finished)
        tokens += len(events)
        for event in events:
            wanted[layers[event.sequence][event.output_index]] += 1
    seconds = perf_counter() - start
    split = {name: value - before[name] for name, value in asdict(engine.meter.time).items()}
    return Window(tokens, seconds, split, dict(log.runs), dict(log.choices), dict(wanted))


def most_tokens(new_tokens: int) -> int:
    """Room for a sequence that runs ahead of the others; should one fill it, the window ends there."""
    return 5 * (new_tokens + WARM_TOKENS)


def replay(exit_layers: tuple[int, ...]) -> ExitParams:
    """Leave where told, filling the KV of skipped layers."""
    options: dict[str, Any] = {"exit_layers": exit_layers}
    return ExitParams(criterion="replay", threshold=0.5, kv="fill", options=options)
