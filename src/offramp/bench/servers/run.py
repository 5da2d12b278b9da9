"""`offramp bench servers`: every server in its own process, under the same load, in turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean
from typing import Any

from offramp.bench.engines import BITS
from offramp.bench.machine import describe_code, describe_machine
from offramp.bench.quiet import Watch
from offramp.bench.results import Cell, EngineRecord, EngineReport, Repeat, check_keeps, earlier_report, write_json
from offramp.bench.rounds import TRIES
from offramp.bench.servers.kinds import Server
from offramp.bench.servers.members import Member
from offramp.bench.servers.prompts import Prompts
from offramp.bench.servers.settings import METRICS, ServersSettings, tasks
from offramp.errors import OfframpError

REPORT = "servers.json"
RESUMABLE = ("users", "max_wait")
"""Settings that may differ from those of the run that is resumed."""

Update = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a phrase that says so."""

Open = Callable[[Server, ExitStack], Member]
"""Starts what a server stands for; what is put on the stack ends it."""


Said = dict[tuple[int, int], dict[str, Any]]
"""Facts of runs, by round and attempt: which of them had the same prompts."""


class ServersReport(EngineReport):
    """What a run measured so far; its engines are servers.

    Cells have the tasks `METRIC/USERS`, such as `ttft/8`. A server's `facts` have, by the number of users, `exit` (as
    `offramp bench serve --json` has it), `equal_answers` (share, against the first server of ours) and `client` (share
    of a core that the client took).
    """

    KIND = "servers"


class ServersRun:
    """One run. `folder` keeps the report as it grows, and what the servers print."""

    def __init__(
        self,
        servers: Sequence[Server],
        settings: ServersSettings,
        folder: Path,
        facts: Mapping[str, Any],
        *,
        open_server: Open,
        update: Update,
        watch: Watch | None = None,
    ) -> None:
        self._servers, self._settings, self._folder = list(servers), settings, folder
        self._open, self._update, self._watch = open_server, update, watch or Watch()
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.report = ServersReport(now, describe_machine(), describe_code(), dict(facts))
        self._members: dict[str, Member] = {}
        self._done, self._total = 0, 1

    def run(self, prompts: Prompts, resume: bool = False) -> ServersReport:
        """Measure everything, writing the report after every number of users.

        Raises:
            InvalidParameter: `resume`, and what is there was measured otherwise.
            OfframpError: no server of ours can be measured.
        """
        earlier = earlier_report(self._folder / REPORT, self.report, RESUMABLE) if resume else None
        if earlier is not None:
            there = [record.name for record in earlier.present]
            check_keeps(self._folder / REPORT, "servers", there, [server.name for server in self._servers])
        with ExitStack() as stack:
            for server in self._servers:
                self._start(server, stack)
            if not any(record.ours for record in self.report.present):
                reason = next((r.absent for r in self.report.engines if r.ours), "none was asked for")
                raise OfframpError(f"offramp itself cannot be measured: {reason}")
            self._total = len(self._settings.users) * len(self._members) * (self._settings.repeats + 1)
            missing = [users for users in self._settings.users if earlier is None or not self._keep(earlier, users)]
            order = {task.label: place for place, users in enumerate(self._settings.users) for task in tasks(users)}
            for users in missing:
                self._measure(users, prompts)
                self.report.cells.sort(key=lambda cell: order[cell.task])
                write_json(self._folder / REPORT, self.report.to_dict())
            write_json(self._folder / REPORT, self.report.to_dict())
        return self.report

    def _start(self, server: Server, stack: ExitStack) -> None:
        self._update(0, 1, f"starting {server.name}")
        bits = BITS[server.precision]
        record = EngineRecord(server.name, server.kind, server.precision, bits, server.ours, "")
        self.report.engines.append(record)
        try:
            self._members[server.name] = self._open(server, stack)
        except OfframpError as error:
            record.absent = error.message

    def _keep(self, earlier: ServersReport, users: int) -> bool:
        """Take over what an earlier run measured with so many users, if it has all of it."""
        kept = [cell for cell in earlier.cells if cell.task in {task.label for task in tasks(users)}]
        if {cell.engine for cell in kept} != set(self._members):
            return False
        self.report.cells += kept
        for record in self.report.present:
            for name, told in earlier.record(record.name).facts.items():
                if str(users) in told:
                    record.facts.setdefault(name, {})[str(users)] = told[str(users)]
        return True

    def _measure(self, users: int, prompts: Prompts) -> None:
        settings = self._settings
        cells = {
            (name, task.kind): Cell(name, task.label, METRICS[task.kind].unit)
            for name in self._members
            for task in tasks(users)
        }
        said: dict[str, Said] = defaultdict(dict)
        for name in list(self._members):
            self._say(name, users, 0)
            self._run(name, prompts.take(users), users)
        for number in range(settings.repeats):
            samples, waking = [prompts.take(settings.count(users)) for _ in range(TRIES)], prompts.take(1)
            # Whoever is first in a round is first in one round only.
            names = list(self._members)
            shift = number % max(len(names), 1)
            for name in [*names[shift:], *names[:shift]]:
                self._say(name, users, number + 1)
                said[name].update(self._repeat(name, cells, waking, samples, users, number))
        self.report.cells += [cell for (name, _), cell in cells.items() if name in self._members and cell.repeats]
        first = next((record.name for record in self.report.present if record.ours), None)
        for record in self.report.present:
            for fact, value in summary(said[record.name], said.get(first or "", {})).items():
                record.facts.setdefault(fact, {})[str(users)] = value

    def _repeat(
        self,
        name: str,
        cells: Mapping[tuple[str, str], Cell],
        waking: Any,
        samples: list[Any],
        users: int,
        number: int,
    ) -> Said:
        """Run until undisturbed; the facts of that run, or none.

        The prompts `waking` go before: what has held still for long may have lost its pages to the system.
        """
        for attempt, prompts in enumerate(samples):
            if self._run(name, waking, users) is None:
                return {}
            self._watch.wait_until_quiet(self._settings.max_wait)
            before = self._watch.read()
            made = self._run(name, prompts, users)
            if made is None:
                return {}
            seen = self._watch.between(before, self._watch.read())
            values, facts = made
            for metric, value in values.items():
                seconds = facts.get("duration", 0.0)
                repeat = Repeat(number, value, seconds, seen.others, seen.steal, seen.clean)
                cells[name, metric].repeats.append(repeat)
            if seen.clean:
                return {(number, attempt): facts}
        return {}

    def _run(self, name: str, samples: Any, users: int) -> tuple[dict[str, float], dict[str, Any]] | None:
        try:
            return self._members[name].run(samples, users)
        except OfframpError as error:
            del self._members[name]
            self.report.record(name).absent = f"it failed: {error.message}"
            return None

    def _say(self, name: str, users: int, number: int) -> None:
        what = f"{users} users, {name}, " + (f"round {number}" if number else "warming up")
        self._update(self._done, self._total, f"{self._done} of {self._total}: {what}")
        self._done += 1


def summary(said: Said, first: Said) -> dict[str, Any]:
    """Facts over all runs of a server that count; its answers are compared with those of `first`, prompt by prompt."""
    made: dict[str, Any] = {}
    if clients := [facts["cpu_seconds"] / facts["duration"] for facts in said.values() if "duration" in facts]:
        made["client"] = mean(clients)
    if exits := [facts["exit"] for facts in said.values() if facts.get("exit")]:
        made["exit"] = {name: mean(one[name] for one in exits) for name in exits[0]}
    common = said.keys() & first.keys()
    equal = [a == b for run in common for a, b in zip(said[run]["texts"], first[run]["texts"], strict=True)]
    if equal:
        made["equal_answers"] = mean(equal)
    return made
