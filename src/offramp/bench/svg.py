"""Bars with whiskers, and the plot of `bench engine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offramp.bench.results import EngineReport, Spread, Task
from offramp.svg import document, line, text

COLOURS = ("#1b6ca8", "#5aa9e6", "#9ad1f5", "#d1495b", "#edae49", "#66a182", "#8d6b94", "#a0a0a0", "#c98b6b", "#3d3d3d")
LEFT, TOP, HEIGHT, BAR, GAP, LINE = 60, 46, 260, 16, 26, 18
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**9)

Seen = Mapping[tuple[str, int], Spread | None]
"""What was seen, by the name of a bar and the batch size it stands at."""


def plot(report: EngineReport) -> str:
    """Decode tokens/s by batch size, a bar for each engine, whiskers from smallest to largest."""
    sizes = sorted({int(c.task.partition("/")[2]) for c in report.cells if c.task.startswith("decode/")})
    names = [e.name for e in report.engines if any(c.engine == e.name for c in report.cells)]
    seen = {(name, size): _spread(report, name, size) for name in names for size in sizes}
    bottom = TOP + HEIGHT
    title = f"{report.settings['name']}: decode, tokens/s, {report.settings['threads']} threads"
    parts = [text(LEFT, 20, title), text(LEFT, 36, str(report.machine["cpu"]))]
    parts += [*bars(names, sizes, seen, LEFT, bottom), *legend(names, bottom + 36)]
    return document(LEFT + bars_width(names, sizes), bottom + 46 + len(names) * LINE, parts)


def _spread(report: EngineReport, name: str, size: int) -> Spread | None:
    cell = report.cell(name, Task("decode", size))
    return None if cell is None else cell.spread


def bars(
    names: Sequence[str], sizes: Sequence[int], seen: Seen, left: float, bottom: float, word: str = "B ="
) -> list[str]:
    """A group of bars for each batch size, above `bottom` and to the right of `left`, with its axis.

    Sizes may be something else, which `word` says.
    """
    top = max((s.high for s in seen.values() if s is not None), default=1.0)
    parts = _axis(top, left, left + bars_width(names, sizes) - 10, bottom)
    for place, size in enumerate(sizes):
        start = left + place * (len(names) * BAR + GAP) + GAP / 2
        parts.append(text(start + len(names) * BAR / 2, bottom + 16, f"{word} {size}", "middle"))
        for number, name in enumerate(names):
            if (spread := seen.get((name, size))) is not None:
                parts += _bar(start + number * BAR, spread, top, bottom, COLOURS[number % len(COLOURS)])
    return parts


def bars_width(names: Sequence[str], sizes: Sequence[int]) -> float:
    """How wide `bars` are, their margin included."""
    return max(len(sizes), 1) * (len(names) * BAR + GAP) + 20


def legend(names: Sequence[str], top: float) -> list[str]:
    """The colour of each name, a line each."""
    parts = []
    for number, name in enumerate(names):
        y = top + number * LINE
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{LEFT}" y="{y - 10:.0f}" width="12" height="12" fill="{colour}"/>')
        parts.append(text(LEFT + 18, y, name))
    return parts


def _axis(top: float, left: float, right: float, bottom: float) -> list[str]:
    step = next(s for s in STEPS if top / s <= 6)
    parts = []
    for number in range(int(top / step + 1e-9) + 1):
        y = bottom - HEIGHT * number * step / top
        parts.append(line(left, y, right, y, "#dddddd"))
        parts.append(text(left - 6, y + 4, f"{round(number * step, 1):g}", "end"))
    return parts


def _bar(x: float, spread: Spread, top: float, bottom: float, colour: str) -> list[str]:
    height, low, high = (HEIGHT * value / top for value in spread)
    middle = x + (BAR - 2) / 2
    return [
        f'<rect x="{x:.1f}" y="{bottom - height:.1f}" width="{BAR - 2}" height="{height:.1f}" fill="{colour}"/>',
        line(middle, bottom - low, middle, bottom - high, "black"),
    ]
