"""The plots of `offramp bench paper`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offramp.bench.paper_results import PaperCell, PaperReport
from offramp.bench.paper_settings import FULL_DEPTH
from offramp.bench.paper_tables import split_names
from offramp.bench.results import Spread
from offramp.bench.svg import BAR, COLOURS, HEIGHT, LEFT, LINE, TOP, bars, bars_width, legend
from offramp.evaluate.bootstrap import Interval
from offramp.evaluate.charts import HEIGHT as CHART_HEIGHT
from offramp.evaluate.charts import WIDTH as CHART_WIDTH
from offramp.evaluate.charts import Point, scatter
from offramp.svg import document, text

COLUMNS = 2
ROW = HEIGHT + 60
SPLIT_WIDTH, SPLIT_LEFT = 420, 190
FAMILIES = (FULL_DEPTH, "paper", "step", "ours", "lossless")


def paper_plots(report: PaperReport) -> dict[str, str]:
    """File name -> picture."""
    return {
        "paper-frontier.svg": _frontiers(report),
        "paper-batch.svg": _by_batch(report),
        "paper-split.svg": _time_split(report),
        "paper-depth.svg": _depths(report),
    }


def _by_traffic(report: PaperReport) -> dict[str, list[PaperCell]]:
    found: dict[str, list[PaperCell]] = {}
    for cell in report.merged():
        found.setdefault(cell.traffic, []).append(cell)
    return found


def _frontiers(report: PaperReport) -> str:
    """A chart for each traffic, side by side and below one another."""
    parts = [text(LEFT, 20, _title(report)), text(LEFT, 36, str(report.machine["cpu"]))]
    charts = [_frontier(report, traffic, cells) for traffic, cells in _by_traffic(report).items()]
    for number, picture in enumerate(charts):
        left, top = number % COLUMNS * CHART_WIDTH, TOP + number // COLUMNS * CHART_HEIGHT
        parts.append(f'<g transform="translate({left} {top})">{picture}</g>')
    return document(COLUMNS * CHART_WIDTH, TOP + -(-len(charts) // COLUMNS) * CHART_HEIGHT, parts)


def _title(report: PaperReport) -> str:
    settings = report.settings
    return f"{settings['name']}, {settings['workload']}: {settings['dtype']}, {settings['threads']} threads"


def _frontier(report: PaperReport, traffic: str, cells: Sequence[PaperCell]) -> str:
    """Up: what is lost of the text; to the right: what is won of the speed."""
    families = {way["name"]: way["family"] for way in report.ways}
    points = []
    for cell in cells:
        seen, lost = cell.spread("speedup"), 100 * (1 - cell.quality["rouge_l"])
        if seen is not None:
            place = FAMILIES.index(families[cell.way])
            points.append(Point(cell.way, place, Interval(*seen), Interval(lost, lost, lost)))
    return scatter(traffic, "speed-up over full depth", "ROUGE-L lost, %", points)


def _depths(report: PaperReport) -> str:
    """Share of tokens by the layer that proposed them: the paper's configuration and each change, a row per traffic."""
    rows = _by_traffic(report)
    names = _shown([cell for cells in rows.values() for cell in cells])
    layers = sorted({layer for cells in rows.values() for cell in cells for layer in cell.depths})
    parts = [text(LEFT, 20, f"{_title(report)}: share of tokens by the layer that proposed them")]
    bottom = TOP
    for traffic, cells in rows.items():
        bottom += ROW
        shares = {(c.way, layer): n / max(c.tokens, 1) for c in cells for layer, n in c.depths.items()}
        seen = {place: Spread(share, share, share) for place, share in shares.items() if place[0] in names}
        parts.append(text(LEFT, bottom - HEIGHT - 12, traffic))
        parts += bars(names, layers, seen, LEFT, bottom, "layer")
    parts += legend(names, bottom + 36)
    return document(LEFT + bars_width(names, layers), bottom + 46 + len(names) * LINE, parts)


def _shown(cells: Sequence[PaperCell]) -> list[str]:
    """The paper's configuration that the changes start from, and the changes: as many ways as there are colours."""
    ways = [way for way in dict.fromkeys(cell.way for cell in cells) if way != FULL_DEPTH]
    papers = [way for way in ways if way.startswith("paper")]
    return [*papers[:1], *[way for way in ways if way not in papers]][: len(COLOURS)]


def _by_batch(report: PaperReport) -> str:
    """Speed-up by batch size, a bar for the paper's configuration and for each change."""
    cells = [c for c in report.merged() if c.traffic.startswith("B=") and c.way != FULL_DEPTH]
    sizes = sorted({int(cell.traffic[2:]) for cell in cells})
    names = _shown(cells)
    seen: Mapping[tuple[str, int], Spread | None] = {
        (cell.way, int(cell.traffic[2:])): cell.spread("speedup") for cell in cells if cell.way in names
    }
    bottom = TOP + HEIGHT
    parts = [text(LEFT, 20, f"{_title(report)}: speed-up over full depth"), text(LEFT, 36, str(report.machine["cpu"]))]
    parts += [*bars(names, sizes, seen, LEFT, bottom), *legend(names, bottom + 36)]
    return document(LEFT + bars_width(names, sizes), bottom + 46 + len(names) * LINE, parts)


def _time_split(report: PaperReport) -> str:
    """A bar for each way: the time of a token beside full depth's, in parts."""
    parts = [text(20, 20, f"{_title(report)}: time per token, full depth = 1")]
    y, names = TOP, split_names(report.cells)
    for traffic, cells in _by_traffic(report).items():
        parts.append(text(20, y + 12, traffic))
        y += LINE
        for cell in cells:
            seen = cell.spread("speedup")
            parts.append(text(SPLIT_LEFT - 8, y + 12, cell.way, "end"))
            left = float(SPLIT_LEFT)
            for number, name in enumerate(names):
                share = 0.0 if seen is None else cell.split.get(name, 0.0) / seen.median
                width = SPLIT_WIDTH / 2 * max(share, 0.0)
                parts.append(
                    f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[number]}"/>'
                )
                left += width
            y += LINE
    parts += legend(names, y + LINE)
    return document(SPLIT_LEFT + SPLIT_WIDTH, y + LINE + len(names) * LINE, parts)
