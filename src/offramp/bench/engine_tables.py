"""The report of `offramp bench engine` as tables: titles, columns and rows of text."""

from __future__ import annotations

from typing import NamedTuple

from offramp.bench.results import Cell, EngineRecord, EngineReport, Spread, Task, ratio


class Table(NamedTuple):
    """A table to print."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(report: EngineReport) -> list[Table]:
    """Speeds, ratios against each peer, the best peers, time of a step, how near memory's limit, and who was there."""
    tasks = _tasks(report)
    ours = [e for e in report.engines if e.ours and _measured(report, e)]
    made = [_speeds(report, tasks), *(_ratios(report, tasks, engine) for engine in ours)]
    made += [_best(report, tasks, ours), _steps(report, ours), _ceiling(report, ours), _engines(report)]
    return [table for table in made if table.rows]


def absent_lines(report: EngineReport) -> list[str]:
    """A line for each engine that was asked for and could not be measured, or not to the end."""
    return [f"{e.name}: {e.absent}" for e in report.engines if e.absent is not None]


def rejected_line(report: EngineReport) -> str:
    """How many repeats were thrown away because the machine was not ours."""
    rejected, all_ = sum(c.rejected for c in report.cells), sum(len(c.repeats) for c in report.cells)
    unknown = any(r.others is None for c in report.cells for r in c.repeats)
    if unknown:
        return "this system does not say what other processes use: no repeat could be rejected"
    return f"{rejected} of {all_} repeats were rejected: others used more than 5% of a core, or the host stole it"


def _tasks(report: EngineReport) -> list[Task]:
    labels = dict.fromkeys(cell.task for cell in report.cells)
    return [Task(kind, int(size)) for kind, _, size in (label.partition("/") for label in labels) if kind != "step"]


def _measured(report: EngineReport, engine: EngineRecord) -> bool:
    return any(cell.engine == engine.name for cell in report.cells)


def _heads(tasks: list[Task]) -> tuple[str, ...]:
    return tuple(f"B={t.size}" if t.kind == "decode" else f"{t.kind} {t.size}" for t in tasks)


def _speeds(report: EngineReport, tasks: list[Task]) -> Table:
    rows = []
    for engine in report.engines:
        if _measured(report, engine):
            cells = [report.cell(engine.name, task) for task in tasks]
            rows.append((engine.name, str(engine.bits), *(_speed(cell) for cell in cells)))
    title = "tokens/s: decode of B sequences, and prefill: median (smallest-largest)"
    return Table(title, ("engine", "bits", *_heads(tasks)), rows)


def _speed(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    seen = cell.spread
    return "disturbed" if seen is None else f"{seen.median:.0f} ({seen.low:.0f}-{seen.high:.0f})"


def _ratios(report: EngineReport, tasks: list[Task], ours: EngineRecord) -> Table:
    rows = []
    for peer in report.engines:
        if not peer.ours and _measured(report, peer):
            rows.append(
                (peer.name, str(peer.bits), *(_ratio(_against(report, ours.name, peer.name, t)) for t in tasks))
            )
    return Table(f"{ours.name} / peer: median of rounds (smallest-largest)", ("peer", "bits", *_heads(tasks)), rows)


def _ratio(seen: Spread | None) -> str:
    return "-" if seen is None else f"{seen.median:.2f}x ({seen.low:.2f}-{seen.high:.2f})"


def _against(report: EngineReport, ours: str, theirs: str, task: Task) -> Spread | None:
    a, b = report.cell(ours, task), report.cell(theirs, task)
    return None if a is None or b is None else ratio(a, b)


def best_peer(report: EngineReport, task: Task, ours: EngineRecord) -> EngineRecord | None:
    """The fastest peer at a task among those of at least 8 bits, or, for fewer, among those of exactly that many.

    Where offramp is held to an instruction set, a peer counts only as held to the same, if it was measured so too.
    """
    held = ours.name.partition("@")[2]
    fair = {e.name.removesuffix(f"@{held}") for e in report.engines if not e.ours and e.name.endswith(f"@{held}")}
    found: list[tuple[float, EngineRecord]] = []
    for engine in report.engines:
        cell = report.cell(engine.name, task)
        seen = None if cell is None else cell.spread
        same = engine.bits >= 8 if ours.bits >= 8 else engine.bits == ours.bits
        if not engine.ours and seen is not None and same and not (held and engine.name in fair):
            found.append((seen.median, engine))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _best(report: EngineReport, tasks: list[Task], ours: list[EngineRecord]) -> Table:
    rows = []
    for engine in ours:
        texts = []
        for task in tasks:
            peer = best_peer(report, task, engine)
            seen = None if peer is None else _against(report, engine.name, peer.name, task)
            texts.append("-" if peer is None or seen is None else f"{seen.median:.2f}x {peer.name}")
        if any(text != "-" for text in texts):
            rows.append((engine.name, *texts))
    title = "against the best peer of at least 8 bits (4 bits against 4 bits)"
    return Table(title, ("engine", *_heads(tasks)), rows)


def _steps(report: EngineReport, ours: list[EngineRecord]) -> Table:
    sizes = sorted({int(c.task.partition("/")[2]) for c in report.cells if c.task.startswith("step/")})
    rows = []
    for engine in ours:
        cells = [report.cell(engine.name, Task("step", size)) for size in sizes]
        first = cells[0] if cells else None
        if first is None or first.spread is None:
            continue
        texts = [f"{first.spread.median:.2f} ms"]
        for cell in cells[1:]:
            seen = None if cell is None else ratio(cell, first)
            texts.append("-" if seen is None else f"{seen.median:.2f}x ({seen.low:.2f}-{seen.high:.2f})")
        rows.append((engine.name, *texts))
    heads = [f"{sizes[0]} row{'s' * (sizes[0] > 1)}"] if sizes else []
    heads += [f"{size} rows" for size in sizes[1:]]
    title = "one step with several rows of one sequence (verification): time, and how often the first"
    return Table(title, ("engine", *heads), rows)


def _ceiling(report: EngineReport, ours: list[EngineRecord]) -> Table:
    """One sequence at a time reads all weights for each token, and cannot be faster than memory."""
    rows: list[tuple[str, ...]] = []
    limit = (report.ceilings or {}).get("gb_per_s")
    for engine in ours:
        cell, size = report.cell(engine.name, Task("decode", 1)), engine.facts.get("weight_bytes")
        if limit and size and cell is not None and cell.spread is not None:
            used = size * cell.spread.median / 1e9
            share = f"{100 * used / limit:.0f}%"
            rows.append((engine.name, f"{size / 1e6:.0f} MB", f"{used:.1f}", f"{limit:.1f}", share))
    title = "decode of one sequence against the memory: weights read per token, and bandwidth"
    return Table(title, ("engine", "weights", "GB/s used", "GB/s measured", "of ceiling"), rows)


def _engines(report: EngineReport) -> Table:
    rows: list[tuple[str, ...]] = []
    for engine in report.engines:
        if _measured(report, engine):
            facts = engine.facts
            load = f"{facts['import_seconds']:.1f} + {facts['load_seconds']:.1f} s"
            memory = f"{(engine.peak_bytes or 0) / 1e6:.0f} MB"
            rows.append((engine.name, facts["version"], load, memory, facts["isa"], facts["route"]))
    return Table("engines", ("engine", "version", "import + load", "peak memory", "instructions", "route"), rows)
