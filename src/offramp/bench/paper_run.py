"""`offramp bench paper`: every way to serve under every traffic, in rounds, full depth beside each group of ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offramp.bench.paper_quality import Judge, Outputs
from offramp.bench.paper_results import PaperCell, PaperReport
from offramp.bench.paper_settings import OFF, Heads, PaperSettings, Setting, Traffic, arrival_settings
from offramp.bench.quiet import Watch
from offramp.bench.results import begin_report, earlier_report, write_json
from offramp.bench.rounds import TRIES
from offramp.bench.traffic import Stretch, ask_by_the_clock, ask_in_turns, poisson_times
from offramp.bench.workloads import Workload
from offramp.config import EngineConfig
from offramp.llm import LLM
from offramp.llm.session import Session
from offramp.types.sampling import SamplingParams

REPORT = "paper.json"
RESUMABLE = ("batches", "loads", "max_wait")
"""Settings that may differ from those of the run that is resumed."""

GROUP = 4
"""Ways that share a full depth in each round: few, so that it is measured near each of them."""

Update = Callable[[int, int, str], None]


class PaperRun:
    """One run. `llms` hold the same model with heads that score the whole vocabulary and with the pack's own.

    `facts` say what runs (model, pack, dtype, threads); `folder` keeps the report as it grows. With `resume`, groups of
    ways that the folder's report has under some traffic are not measured again.

    Raises:
        InvalidParameter: `resume`, and what is there was measured otherwise.
    """

    def __init__(
        self,
        grid: PaperSettings,
        workload: Workload,
        llms: Mapping[Heads, LLM],
        ways: Sequence[Setting],
        folder: Path,
        facts: dict[str, Any],
        *,
        update: Update,
        watch: Watch | None = None,
        resume: bool = False,
    ) -> None:
        self.grid, self.workload, self.folder = grid, workload, folder
        self._llms, self._ways, self._update, self._watch = llms, list(ways), update, watch or Watch()
        self._prompts = [prompt.tokens for prompt in workload.prompts][: grid.prompts]
        self._sampling = SamplingParams(max_tokens=workload.max_tokens)
        self._judge = Judge(llms["own"], workload)
        self._done = 0
        work = {"workload": workload.name, "data": workload.digest, "max_tokens": workload.max_tokens}
        self.report = begin_report(PaperReport, {**facts, **work, **asdict(grid)})
        self.report.ways = [way.to_dict() for way in (OFF, *self._ways)]
        self._earlier = earlier_report(folder / REPORT, self.report, RESUMABLE) if resume else None
        if self._earlier is not None:
            self.report.rejected, self.report.peers = self._earlier.rejected, self._earlier.peers

    def measure(self) -> None:
        """Measure everything, writing the report after every group of ways."""
        missing, units = [], self._units()
        order = {(traffic.label, number): place for place, (traffic, number, _) in enumerate(units)}
        for unit in units:
            cells = self._kept(*unit)
            if cells is None:
                missing.append(unit)
            else:
                self.report.cells += cells
        self._total = sum(1 + len(group) for _, _, group in missing) * self.grid.repeats
        self.report.capacity = self._capacity() if self.grid.loads else None
        write_json(self.folder / REPORT, self.report.to_dict())
        for traffic, number, group in missing:
            self.report.cells += self._measure(traffic, number, group)
            self.report.cells.sort(key=lambda cell: order[cell.traffic, cell.group])
            write_json(self.folder / REPORT, self.report.to_dict())

    def keep_peers(self, peers: dict[str, Any]) -> None:
        """Take a report of `offramp bench engine` into the report."""
        self.report.peers = peers
        write_json(self.folder / REPORT, self.report.to_dict())

    def _units(self) -> list[tuple[Traffic, int, list[Setting]]]:
        """What is measured together: the traffic, and a group of ways with its number."""
        groups = [self._ways[i : i + GROUP] for i in range(0, len(self._ways), GROUP)]
        units = [(Traffic(batch), number, group) for batch in self.grid.batches for number, group in enumerate(groups)]
        return units + [(Traffic(load=load), 0, arrival_settings(self._ways)) for load in self.grid.loads]

    def _kept(self, traffic: Traffic, number: int, group: Sequence[Setting]) -> list[PaperCell] | None:
        """What an earlier run of this version measured; None if it has to be done."""
        earlier = self._earlier
        if earlier is None or earlier.code.get("offramp") != self.report.code["offramp"]:
            return None
        known = {way["name"]: way for way in earlier.ways}
        if any(known.get(way.name) != way.to_dict() for way in group):
            return None
        if traffic.load and not self._same_most(earlier):
            return None
        return earlier.kept(traffic.label, number, [OFF.name, *(way.name for way in group)])

    def _capacity(self) -> float:
        """Requests a second that full depth takes at the largest batch; arrivals are measured against it."""
        earlier = self._earlier
        if earlier is not None and earlier.capacity is not None and self._same_most(earlier):
            return earlier.capacity
        traffic = Traffic(max(self.grid.batches))
        places = self._places(traffic, 0)
        self._update(0, self._total, "measuring how much full depth can take")
        self._stretch(OFF, traffic, 0, places)  # what is cold is slower
        stretch, _ = self._try(OFF, traffic, 0, places)
        tokens = sum(len(output.token_ids) for output in stretch.outputs)
        return stretch.tokens / stretch.seconds * len(stretch.outputs) / tokens

    def _same_most(self, earlier: PaperReport) -> bool:
        """Whether arrivals were measured against the same batch: how many sequences run at once, and the capacity."""
        return bool(max(earlier.settings["batches"]) == max(self.grid.batches))

    def _places(self, traffic: Traffic, number: int) -> list[int]:
        """The prompts of a round: those behind the ones of the round before, from the beginning again at the end."""
        count = self.grid.prompts_under(traffic)
        return [(number * count + i) % len(self._prompts) for i in range(count)]

    def _measure(self, traffic: Traffic, group: int, ways: Sequence[Setting]) -> list[PaperCell]:
        kinds = [OFF, *ways]
        cells = {way.name: PaperCell(way.name, traffic.label, group) for way in kinds}
        outputs: dict[str, Outputs] = {way.name: {} for way in kinds}
        for number in range(self.grid.repeats):
            places, shift = self._places(traffic, number), number % len(kinds)
            clean: dict[str, Stretch] = {}
            for way in kinds[shift:] + kinds[:shift]:
                what = f"{traffic.label}, {way.name}, repeat {number + 1}"
                self._update(self._done, self._total, f"{self._done} of {self._total}: {what}")
                self._done += 1
                stretch, quiet = self._try(way, traffic, number, places)
                if quiet:
                    clean[way.name] = stretch
                outputs[way.name].update(zip(places, stretch.outputs, strict=True))
                cells[way.name].count(stretch.outputs, stretch.held, stretch.forced)
            if OFF.name in clean:
                for name, stretch in clean.items():
                    cells[name].add(clean[OFF.name], stretch)
        self._judge.learn(outputs[OFF.name])
        for name, cell in cells.items():
            self._update(self._done, self._total, f"{self._done} of {self._total}: judging {traffic.label}, {name}")
            cell.quality = self._judge.judge(outputs[name])
        return list(cells.values())

    def _try(self, way: Setting, traffic: Traffic, number: int, places: Sequence[int]) -> tuple[Stretch, bool]:
        """A stretch, and whether nobody disturbed it; outputs are the same either way."""
        for _ in range(TRIES):
            self._watch.wait_until_quiet(self.grid.max_wait)
            before = self._watch.read()
            stretch = self._stretch(way, traffic, number, places)
            if self._watch.between(before, self._watch.read()).clean:
                return stretch, True
            self.report.rejected += 1
        return stretch, False

    def _stretch(self, way: Setting, traffic: Traffic, number: int, places: Sequence[int]) -> Stretch:
        prompts = [self._prompts[place] for place in places]
        if traffic.clients:
            session = self._session(way, traffic.clients)
            return ask_in_turns(session, prompts, self._sampling, way.exit, traffic.clients)
        assert self.report.capacity is not None, "the capacity is measured first"
        rate = traffic.load * self.report.capacity
        times = poisson_times(len(prompts), rate, f"{traffic.label}/{number}")
        return ask_by_the_clock(self._session(way, max(self.grid.batches)), prompts, self._sampling, way.exit, times)

    def _session(self, way: Setting, most: int) -> Session:
        """A fresh engine on the executor that has the heads. Nothing it learns stays behind."""
        llm = self._llms[way.heads]
        config = EngineConfig(
            batching=way.batching,
            max_num_seqs=most,
            max_num_batched_tokens=max(512, most),
            prefix_caching=False,
            profitability=way.switch,
        )
        costs = deepcopy(llm.engine.costs)
        return Session(llm.engine.executor, config, costs, llm.tokenizer, llm.pack, llm.calibration_key)
