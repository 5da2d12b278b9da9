"""The report of `offramp bench servers` as tables: titles, columns and rows of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offramp.bench.engine_tables import Table
from offramp.bench.results import Cell, EngineRecord, Spread, Task, ratio
from offramp.bench.servers.kinds import IN_PROCESS
from offramp.bench.servers.run import ServersReport
from offramp.bench.servers.settings import METRICS


def server_tables(report: ServersReport) -> list[Table]:
    """Each metric, our first server against the others, what HTTP costs, what exits did, and what the client took."""
    made = [_metric(report, name) for name in METRICS]
    made += [_better(report), _http(report), _exits(report), _client(report)]
    return [table for table in made if table.rows]


def _users(report: ServersReport) -> list[int]:
    return sorted({int(cell.task.partition("/")[2]) for cell in report.cells})


def _heads(report: ServersReport) -> tuple[str, ...]:
    return tuple(f"{users} user{'s' * (users > 1)}" for users in _users(report))


def _served(report: ServersReport) -> list[EngineRecord]:
    """Those that were measured over HTTP."""
    seen = {cell.engine for cell in report.cells}
    return [r for r in report.engines if r.name in seen and not r.name.endswith(IN_PROCESS)]


def _first(report: ServersReport) -> EngineRecord | None:
    return next((record for record in _served(report) if record.ours), None)


def _metric(report: ServersReport, name: str) -> Table:
    rows = []
    for record in _served(report):
        cells = [report.cell(record.name, Task(name, users)) for users in _users(report)]
        rows.append((record.name, *(_value(cell) for cell in cells)))
    return Table(f"{METRICS[name].title}: median (smallest-largest)", ("server", *_heads(report)), rows)


def _value(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    seen = cell.spread
    if seen is None:
        return "disturbed"
    return " ".join([_number(seen.median), f"({_number(seen.low)}-{_number(seen.high)})"])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def better(report: ServersReport, other: str, metric: str, users: int) -> Spread | None:
    """How many times as good as another server our first one is, round by round: above 1 it is ahead."""
    first, task = _first(report), Task(metric, users)
    if first is None:
        return None
    a, b = report.cell(first.name, task), report.cell(other, task)
    if a is None or b is None:
        return None
    return ratio(b, a) if METRICS[metric].less else ratio(a, b)


def _better(report: ServersReport) -> Table:
    first, rows = _first(report), []
    for record in _served(report):
        for metric in METRICS:
            if first is not None and record.name != first.name:
                seen = [better(report, record.name, metric, users) for users in _users(report)]
                rows.append((record.name, metric, *map(_times, seen)))
    title = f"{first.name if first else 'offramp'} against others: how many times as good, median of rounds"
    return Table(title, ("against", "in", *_heads(report)), rows)


def _times(seen: Spread | None) -> str:
    return "-" if seen is None else f"{seen.median:.2f}x ({seen.low:.2f}-{seen.high:.2f})"


def _http(report: ServersReport) -> Table:
    """The throughput that is lost on the way from the engine to the client, the client's own work included."""
    first = _first(report)
    rows: list[tuple[str, ...]] = []
    for record in report.engines:
        texts = []
        for users in _users(report):
            task = Task("throughput", users)
            a, b = (None, None) if first is None else (report.cell(first.name, task), report.cell(record.name, task))
            seen = None if a is None or b is None else ratio(a, b)
            texts.append("-" if seen is None else f"{100 * (1 - seen.median):.1f}%")
        if record.name.endswith(IN_PROCESS) and first is not None and any(text != "-" for text in texts):
            speeds = [_value(report.cell(record.name, Task("throughput", users))) for users in _users(report)]
            rows += [(f"{record.name}, tokens/s", *speeds), (f"lost by {first.name}", *texts)]
    return Table("what HTTP costs of the engine's throughput, client included", ("", *_heads(report)), rows)


def _facts(report: ServersReport, fact: str, shown: Callable[[Any], str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for record in _served(report):
        told = record.facts.get(fact, {})
        texts = [shown(told[str(users)]) if str(users) in told else "-" for users in _users(report)]
        if any(text != "-" for text in texts):
            rows.append((record.name, *texts))
    return rows


def _exits(report: ServersReport) -> Table:
    def shown(told: Any) -> str:
        layer = f"layer {told['mean_exit_layer']:.1f} of {told['num_layers']:.0f}"
        if not told["drafts_proposed"]:
            return layer
        return f"{layer}, {100 * told['drafts_accepted'] / told['drafts_proposed']:.0f}% of drafts accepted"

    rows = _facts(report, "exit", shown)
    ours = {record.name for record in report.engines if record.ours}
    equal = [
        (f"{name}: equal answers", *texts)
        for name, *texts in _facts(report, "equal_answers", lambda share: f"{100 * share:.1f}%")
        if name in ours
    ]
    return Table("what exits did", ("server", *_heads(report)), rows + equal)


def _client(report: ServersReport) -> Table:
    rows = _facts(report, "client", lambda share: f"{100 * share:.1f}%")
    return Table("the client's own processor time, of a core", ("server", *_heads(report)), rows)
