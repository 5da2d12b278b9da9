"""Bars of decode speed as an SVG file, written by hand so that no plotting package is needed."""

from __future__ import annotations

from html import escape

from offramp.bench.results import EngineReport, Spread, Task

COLOURS = ("#1b6ca8", "#5aa9e6", "#9ad1f5", "#d1495b", "#edae49", "#66a182", "#8d6b94", "#a0a0a0", "#c98b6b", "#3d3d3d")
LEFT, TOP, HEIGHT, BAR, GAP, LINE = 60, 46, 260, 16, 26, 18


def plot(report: EngineReport) -> str:
    """Decode tokens/s by batch size, a bar for each engine, whiskers from smallest to largest."""
    sizes = sorted(int(c.task.partition("/")[2]) for c in report.cells if c.task.startswith("decode/"))
    sizes = list(dict.fromkeys(sizes))
    names = [e.name for e in report.engines if any(c.engine == e.name for c in report.cells)]
    seen = {(name, size): _spread(report, name, size) for name in names for size in sizes}
    top = max((s.high for s in seen.values() if s is not None), default=1.0)
    group = len(names) * BAR + GAP
    width, bottom = LEFT + max(len(sizes), 1) * group + 20, TOP + HEIGHT
    parts = _axis(top, width, bottom)
    for place, size in enumerate(sizes):
        start = LEFT + place * group + GAP / 2
        parts.append(_text(start + len(names) * BAR / 2, bottom + 16, f"B = {size}", "middle"))
        for number, name in enumerate(names):
            if (spread := seen[name, size]) is not None:
                parts += _bar(start + number * BAR, spread, top, bottom, COLOURS[number % len(COLOURS)])
    for number, name in enumerate(names):
        y = bottom + 36 + number * LINE
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(_text(LEFT + 18, y, name, "start"))
    height = bottom + 46 + len(names) * LINE
    title = f"{report.settings['name']}: decode, tokens/s, {report.settings['threads']} threads"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )
    machine = _text(LEFT, 36, str(report.machine["cpu"]), "start")
    return "\n".join([head, _text(LEFT, 20, title, "start"), machine, *parts, "</svg>"]) + "\n"


def _spread(report: EngineReport, name: str, size: int) -> Spread | None:
    cell = report.cell(name, Task("decode", size))
    return None if cell is None else cell.spread


def _axis(top: float, width: float, bottom: int) -> list[str]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**9) if top / s <= 6)
    parts = []
    for value in range(0, int(top) + 1, step):
        y = bottom - HEIGHT * value / top
        parts.append(f'<line x1="{LEFT}" x2="{width - 10:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, y + 4, str(value), "end"))
    return parts


def _bar(x: float, spread: Spread, top: float, bottom: int, colour: str) -> list[str]:
    height, low, high = (HEIGHT * value / top for value in spread)
    middle = x + (BAR - 2) / 2
    return [
        f'<rect x="{x:.1f}" y="{bottom - height:.1f}" width="{BAR - 2}" height="{height:.1f}" fill="{colour}"/>',
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{bottom - low:.1f}" y2="{bottom - high:.1f}" stroke="black"/>',
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
