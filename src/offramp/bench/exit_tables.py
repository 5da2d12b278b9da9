"""The report of `offramp bench exits` as tables."""

from __future__ import annotations

from offramp.bench.engine_tables import Table
from offramp.bench.exit_results import ExitCell, ExitReport
from offramp.bench.results import Spread

KEY = ("trace", "B", "policy")
SPLIT = ("layers", "top", "checks", "fill", "python")


def exit_tables(report: ExitReport) -> list[Table]:
    """What exits made of the time they save, and where the time goes."""
    cells = report.cells
    rest = ("speed-up", "realisation", "with choices", "by shares", "efficiency")
    heads = (*KEY, "ms/token off", "on", *rest)
    speeds = [(*_key(c), *(_ms(c, n) for n in ("off_ms", "on_ms")), *_numbers(c)) for c in cells]
    splits = [(*_key(c), *(_share(c, name) for name in SPLIT)) for c in cells]
    return [
        Table("exits: median of rounds (smallest-largest)", heads, speeds),
        Table("where the time goes with exits on", (*KEY, *SPLIT), splits),
    ]


def _key(cell: ExitCell) -> tuple[str, str, str]:
    return cell.trace, str(cell.batch), cell.policy


def _ms(cell: ExitCell, name: str) -> str:
    seen = cell.spread(name)
    return "disturbed" if seen is None else f"{seen.median:.2f}"


def _numbers(cell: ExitCell) -> tuple[str, ...]:
    speedup, realised = cell.spread("speedup"), cell.spread("realisation")
    others = [cell.spread(name) for name in ("realisation_with_choices", "realisation_by_shares", "efficiency")]
    return _wide(speedup, "x"), _wide(realised), *map(_short, others)


def _wide(seen: Spread | None, unit: str = "") -> str:
    return "-" if seen is None else f"{seen.median:.2f}{unit} ({seen.low:.2f}-{seen.high:.2f})"


def _short(seen: Spread | None) -> str:
    return "-" if seen is None else f"{seen.median:.2f}"


def _share(cell: ExitCell, name: str) -> str:
    return f"{100 * cell.split[name]:.1f}%" if name in cell.split else "-"


def exit_rejected_line(report: ExitReport) -> str:
    """How many windows were thrown away because the machine was not ours."""
    return f"{report.rejected} repeats were rejected: others used more than 5% of a core, or the host stole it"
