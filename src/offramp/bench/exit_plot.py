"""The plot of `offramp bench exits`: a row for each trace, speed-up on the left and realisation on the right."""

from __future__ import annotations

from offramp.bench.exit_results import ExitReport
from offramp.bench.results import Spread
from offramp.bench.svg import HEIGHT, LEFT, LINE, TOP, bars, bars_width, legend
from offramp.svg import document, text

PANELS = {"speedup": "speed-up", "realisation": "realisation"}
ROW = HEIGHT + 60
NARROWEST = 200
"""Room for a panel's title."""


def exit_plot(report: ExitReport) -> str:
    """Speed-up and realisation by batch size, a bar for each policy, whiskers from smallest to largest."""
    traces = list(dict.fromkeys(cell.trace for cell in report.cells))
    policies = list(dict.fromkeys(cell.policy for cell in report.cells))
    sizes = sorted({cell.batch for cell in report.cells})
    panel = LEFT + max(bars_width(policies, sizes), NARROWEST)
    settings = report.settings
    title = f"{settings['name']}: exits, {settings['dtype']}, {settings['threads']} threads"
    parts = [text(LEFT, 20, title), text(LEFT, 36, str(report.machine["cpu"]))]
    for row, trace in enumerate(traces):
        top = TOP + 30 + row * ROW
        for column, (name, words) in enumerate(PANELS.items()):
            left = LEFT + column * panel
            parts.append(text(left, top - 12, f"{trace}: {words}"))
            parts += bars(policies, sizes, _seen(report, trace, name), left, top + HEIGHT)
    end = TOP + 30 + len(traces) * ROW
    parts += legend(policies, end)
    return document(len(PANELS) * panel, end + 10 + len(policies) * LINE, parts)


def _seen(report: ExitReport, trace: str, name: str) -> dict[tuple[str, int], Spread | None]:
    return {(cell.policy, cell.batch): cell.spread(name) for cell in report.cells if cell.trace == trace}
