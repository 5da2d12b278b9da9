"""`offramp bench exits`: replay exit traces under each batching policy, interleaved with runs that use no exits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

from offramp.bench.engines import ISAS, Engine
from offramp.bench.exit_results import ExitCell, ExitReport
from offramp.bench.exit_traces import ExitTrace
from offramp.bench.prices import PriceTable, Pricing
from offramp.bench.quiet import Watch
from offramp.bench.results import begin_report, earlier_report, write_json
from offramp.bench.rounds import TRIES
from offramp.bench.windows import WARM_TOKENS, Window, most_tokens, run_window
from offramp.config import Batching
from offramp.engine.costs import CostModel
from offramp.errors import InvalidParameter
from offramp.exits.pack import ModelSizes
from offramp.llm import LLM
from offramp.types.checks import check_integer, check_one_of
from offramp.types.executor import Executor

REPORT = "exits.json"
POLICIES: tuple[Batching, ...] = get_args(Batching)
HEAD_WORDS = 8192
BLOCK_SIZE = 16
RESUMABLE = ("batches", "policies", "max_wait")
"""Settings that may differ from those of the run that is resumed."""

Update = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """The work and how often it is done.

    Args:
        batches: sequences live at once.
        policies: batching policies to compare.
        repeats: rounds that count; each round runs without exits once, and once under every policy.
        prompt_tokens: context before the first token.
        new_tokens: tokens timed for each sequence, on average.
        head_words: tokens that exit heads score; 0 is the whole vocabulary.
        max_wait: seconds to wait for a quiet machine before a repeat is tried all the same.
    """

    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    policies: tuple[Batching, ...] = POLICIES
    repeats: int = 5
    prompt_tokens: int = 64
    new_tokens: int = 64
    head_words: int = HEAD_WORDS
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        if not self.batches or len(set(self.batches)) < len(self.batches):
            raise InvalidParameter("`--batch` must name batch sizes, each once", param="batch")
        for batch in self.batches:
            check_integer("batch", batch, 1)
        for policy in self.policies:
            check_one_of("policies", policy, POLICIES)
        if not self.policies or len(set(self.policies)) < len(self.policies):
            raise InvalidParameter("`--policies` must name policies, each once", param="policies")
        check_integer("repeats", self.repeats, 1)
        check_integer("prompt_tokens", self.prompt_tokens, 1)
        check_integer("new_tokens", self.new_tokens, 1)
        check_integer("head_words", self.head_words, 0)

    @property
    def room(self) -> int:
        """Tokens that a sequence may have."""
        return self.prompt_tokens + most_tokens(self.new_tokens) + 1

    @property
    def context(self) -> int:
        """Tokens that a sequence has half-way through a window."""
        return self.prompt_tokens + WARM_TOKENS + self.new_tokens // 2


QUICK: Mapping[str, Any] = {"batches": (1, 8), "repeats": 3, "new_tokens": 32}
"""What `--quick` changes."""


def write_pack(folder: Path, spec: ModelSizes, exits: Sequence[int], head_words: int) -> Path:
    """An exit pack without training: the model's own norm and head at each exit, over its first `head_words` tokens.

    Replayed exits ask for a choice and for nothing else, so what is chosen does not matter, and its cost does.
    """
    words = min(head_words or spec.vocab_size, spec.vocab_size)
    vocabulary = {} if words == spec.vocab_size else {"vocabulary": "first"}
    values = {
        "format": 1,
        "base": {
            "num_layers": spec.num_layers,
            "hidden_size": spec.hidden_size,
            "vocab_size": spec.vocab_size,
        },
        "vocabularies": {"first": list(range(words))} if vocabulary else {},
        "exits": [{"layer": layer, **vocabulary} for layer in exits],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "exits.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@contextmanager
def held_to(isa: str) -> Iterator[None]:
    """Hold the native core to an instruction set, and give it back the one it had.

    Raises:
        InvalidParameter: this machine cannot run it.
    """
    try:
        from offramp import _native
        from offramp.executors.native import instruction_set
    except ImportError:  # The core was not built, and whoever opens the model is told so.
        yield
        return
    before = instruction_set()
    try:
        _native.choose_isa(isa)
    except ValueError as error:
        hint = f"this machine runs {', '.join(_native.supported_isas())}"
        raise InvalidParameter(f"`--dtype` cannot hold `@{isa}` on this machine", param="dtype", hint=hint) from error
    try:
        yield
    finally:
        _native.choose_isa(before)


@contextmanager
def open_llm(engine: Engine, model: str, threads: int, pack: Path, settings: ExitSettings) -> Iterator[LLM]:
    """The model with the pack's exits and room for the largest batch."""
    most = max(settings.batches)
    blocks = -(-settings.room // BLOCK_SIZE) + 1
    held = held_to(engine.variant) if engine.variant in ISAS else nullcontext()
    with (
        held,
        LLM(
            model,
            exits=pack,
            executor="torch" if engine.variant == "torch" else "native",
            dtype=engine.precision,
            threads=threads,
            block_size=BLOCK_SIZE,
            kv_tokens=most * blocks * BLOCK_SIZE,
            max_num_seqs=most,
            max_num_batched_tokens=max(512, most),
        ) as llm,
    ):
        yield llm


class ExitRun:
    """One run. `facts` say what runs (model, dtype, threads); `folder` keeps the report as it grows.

    With `resume`, traces and batch sizes in the folder's report are not measured again.

    Raises:
        InvalidParameter: `resume`, and what is there was measured otherwise.
    """

    def __init__(
        self,
        settings: ExitSettings,
        folder: Path,
        facts: dict[str, Any],
        *,
        update: Update,
        watch: Watch | None = None,
        resume: bool = False,
    ) -> None:
        self.settings, self.folder = settings, folder
        self._update, self._watch = update, watch or Watch()
        self._done, self._total = 0, 1
        self.report = begin_report(ExitReport, {**facts, **asdict(settings)})
        self._earlier = earlier_report(folder / REPORT, self.report, RESUMABLE) if resume else None
        if self._earlier is not None:
            self.report.rejected = self._earlier.rejected

    def replay(
        self,
        executor: Executor,
        prompts: Callable[[int, int], list[list[int]]],
        traces: Sequence[ExitTrace],
    ) -> None:
        """Replay traces at every batch size on an executor that nobody else uses."""
        settings = self.settings
        self._executor, self._prompts = executor, prompts
        self._done, self._total = 0, self._count(traces)
        units = list(product(settings.batches, traces))
        order = {(batch, trace.name): place for place, (batch, trace) in enumerate(units)}
        missing = []
        for batch, trace in units:
            cells = self._kept(trace, batch)
            if cells is None:
                missing.append((batch, trace))
            else:
                self.report.cells += cells
        write_json(self.folder / REPORT, self.report.to_dict())
        for batch, some in groupby(missing, itemgetter(0)):
            pricing = self._pricing(batch)
            for _, trace in some:
                self.report.cells += self._trace(trace, batch, pricing)
                self.report.cells.sort(key=lambda cell: order.get((cell.batch, cell.trace), -1))
                write_json(self.folder / REPORT, self.report.to_dict())

    def _kept(self, trace: ExitTrace, batch: int) -> list[ExitCell] | None:
        """What an earlier run of this version measured; None if it has to be done."""
        earlier = self._earlier
        if earlier is None or earlier.code.get("offramp") != self.report.code["offramp"]:
            return None
        return earlier.kept(trace.name, batch, self.settings.policies)

    def _pricing(self, batch: int) -> Pricing:
        self._update(self._done, self._total, f"measuring prices for up to {batch} rows")
        self._watch.wait_until_quiet(self.settings.max_wait)
        return Pricing(self._executor, batch, self.settings.context)

    def _count(self, traces: Sequence[ExitTrace]) -> int:
        settings = self.settings
        to_do = sum(self._kept(trace, batch) is None for trace in traces for batch in settings.batches)
        return to_do * settings.repeats * (len(settings.policies) + 1)

    def _trace(self, trace: ExitTrace, batch: int, pricing: Pricing) -> list[ExitCell]:
        policies, costs = self.settings.policies, pricing.table().cost_model()
        rounds: list[dict[Batching | None, Window | None]] = []
        for number in range(self.settings.repeats):
            self._watch.wait_until_quiet(self.settings.max_wait)
            pricing.sweep()
            kinds: list[Batching | None] = [None, *policies]
            shift = number % len(kinds)
            windows: dict[Batching | None, Window | None] = {}
            for kind in kinds[shift:] + kinds[:shift]:
                what = f"{trace.name}, B={batch}, {kind or 'exits off'}, repeat {number + 1}"
                self._update(self._done, self._total, f"{self._done} of {self._total}: {what}")
                self._done += 1
                windows[kind], rejected = self._window(kind, trace, batch, costs)
                self.report.rejected += rejected
            rounds.append(windows)
        return self._cells(trace, batch, rounds, pricing.table())

    def _cells(
        self,
        trace: ExitTrace,
        batch: int,
        rounds: Sequence[Mapping[Batching | None, Window | None]],
        table: PriceTable,
    ) -> list[ExitCell]:
        cells = {policy: ExitCell(trace.name, batch, policy) for policy in self.settings.policies}
        for windows in rounds:
            off = windows[None]
            for policy, cell in cells.items():
                on = windows[policy]
                if on is not None and off is not None:
                    cell.add(off, on, table, self._executor.shape.layers_at)
        return list(cells.values())

    def _window(
        self, kind: Batching | None, trace: ExitTrace, batch: int, costs: CostModel
    ) -> tuple[Window | None, int]:
        """A window during which nobody disturbed us, or None; and how many were thrown away."""
        prompts = self._prompts(batch, self.settings.prompt_tokens)
        for number in range(TRIES):
            self._watch.wait_until_quiet(self.settings.max_wait)
            before = self._watch.read()
            used = None if kind is None else trace
            window = run_window(self._executor, costs, kind or "compact", prompts, used, self.settings.new_tokens)
            if self._watch.between(before, self._watch.read()).clean:
                return window, number
        return None, TRIES
