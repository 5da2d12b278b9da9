"""The report of `offramp bench paper` as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from offramp.bench.engine_tables import Table, absent_lines, tables
from offramp.bench.paper_results import PaperCell, PaperReport
from offramp.bench.paper_settings import FULL_DEPTH
from offramp.bench.results import EngineReport, Spread

SPLIT = ("encoder", "layers", "top", "checks", "fill", "python")
QUALITY = 0.98
"""What a way keeps of full depth's quality to be as good as the paper's: all but 2%."""

ALWAYS = ("agreement", "rouge_l", "perplexity")
"""Measures that every workload has; a further one knows the right answers."""

PEER_TABLES = 2
"""Of the tables of `offramp bench engine`, those that compare speeds."""


def paper_tables(report: PaperReport) -> list[Table]:
    """Everything in one table, the best at the paper's quality, where the time goes, and the other engines."""
    cells = report.merged()
    made = [_main(cells), _best(report, cells), _splits(cells)]
    if report.peers is not None:
        made += tables(EngineReport.from_dict(report.peers))[:PEER_TABLES]
    return made


def paper_notes(report: PaperReport) -> list[str]:
    """What was left out and why, and how much was thrown away."""
    notes = [f"left out: {text}" for text in report.left_out]
    if report.peers is not None:
        notes += absent_lines(EngineReport.from_dict(report.peers))
    thrown = f"{report.rejected} stretches were rejected: others used more than 5% of a core, or the host stole it"
    return [*notes, thrown]


def at_quality(report: PaperReport, traffic: str, fits: Callable[[str], bool]) -> PaperCell | None:
    """The fastest way under some traffic that keeps the paper's quality, of a family that `fits`; None if none does."""
    families = {way["name"]: way["family"] for way in report.ways}
    full = {cell.group: cell for cell in report.cells if (cell.traffic, cell.way) == (traffic, FULL_DEPTH)}
    found = [
        (seen.median, cell)
        for cell in report.merged()
        if cell.traffic == traffic
        and fits(families[cell.way])
        and _quality_kept(cell, full[cell.group]) >= QUALITY
        and (seen := cell.spread("speedup")) is not None
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _quality_kept(cell: PaperCell, full: PaperCell) -> float:
    """Of 1: where right answers are known, by full depth's on the same prompts; else ROUGE-L to its texts."""
    for name in cell.quality.keys() - set(ALWAYS):
        return cell.quality[name] / full.quality[name] if full.quality[name] else 1.0
    return cell.quality["rouge_l"]


def _main(cells: list[PaperCell]) -> Table:
    measures = list(dict.fromkeys(name for cell in cells for name in cell.quality))
    heads: tuple[str, ...] = (
        "traffic",
        "way",
        "tokens/s",
        "speed-up",
        "latency gain",
        "gap p50 ms",
        "p99",
        "first token p50 ms",
        "p99",
    )
    heads += ("depth", "held", "forced", *(name.replace("_", " ") for name in measures))
    rows = []
    for cell in cells:
        held = f"{100 * cell.held / max(cell.tokens, 1):.0f}%"
        quality = [f"{cell.quality[name]:.3f}" if name in cell.quality else "-" for name in measures]
        rows.append(
            (
                cell.traffic,
                cell.way,
                _number(cell.spread("tokens_per_s"), 0),
                _wide(cell.spread("speedup")),
                _wide(cell.spread("latency_gain")),
                *(_number(cell.spread(name), 1) for name in ("gap_p50_ms", "gap_p99_ms")),
                *(_number(cell.spread(name), 0) for name in ("first_p50_ms", "first_p99_ms")),
                f"{cell.depth:.1f}",
                held,
                str(cell.forced),
                *quality,
            )
        )
    return Table("full depth, the paper's configuration, and what changes it: medians (smallest-largest)", heads, rows)


def _best(report: PaperReport, cells: list[PaperCell]) -> Table:
    """The paper's best against ours, both within 2% of full depth's quality."""
    rows: list[tuple[str, ...]] = []
    for traffic in dict.fromkeys(cell.traffic for cell in cells):
        paper = at_quality(report, traffic, lambda family: family == "paper")
        ours = at_quality(report, traffic, lambda family: family not in ("paper", FULL_DEPTH))
        rows.append((traffic, *_said(paper), *_said(ours)))
    heads = ("traffic", "paper's", "speed-up", "latency gain", "ours", "speed-up", "latency gain")
    return Table(f"the fastest that keeps {QUALITY:.0%} of full depth's quality", heads, rows)


def _said(cell: PaperCell | None) -> tuple[str, str, str]:
    if cell is None:
        return "none", "-", "-"
    return cell.way, _wide(cell.spread("speedup")), _wide(cell.spread("latency_gain"))


def split_names(cells: Iterable[PaperCell]) -> tuple[str, ...]:
    """What the time went to: an encoder only where there is one."""
    return SPLIT if any(cell.split.get("encoder") for cell in cells) else SPLIT[1:]


def _splits(cells: list[PaperCell]) -> Table:
    names = split_names(cells)
    rows = [
        (c.traffic, c.way, *(f"{100 * c.split[name]:.1f}%" if name in c.split else "-" for name in names))
        for c in cells
    ]
    return Table("where the time goes", ("traffic", "way", *names), rows)


def _number(seen: Spread | None, digits: int) -> str:
    return "disturbed" if seen is None else f"{seen.median:.{digits}f}"


def _wide(seen: Spread | None) -> str:
    return "-" if seen is None else f"{seen.median:.2f} ({seen.low:.2f}-{seen.high:.2f})"
