"""The charts of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from offramp.evaluate.bootstrap import Interval
from offramp.svg import document, line, text

COLOURS = ("#3d3d3d", "#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d6b94", "#5aa9e6", "#c98b6b")
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 48, 44
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 10**9)

Place = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Point:
    """A point with its whiskers, in the colour of setting number `setting`."""

    name: str
    setting: int
    x: Interval
    y: Interval


def colour(number: int) -> str:
    """The colour of the n-th setting, the same in all charts."""
    return COLOURS[number % len(COLOURS)]


def scatter(title: str, across: str, up: str, points: Sequence[Point], *, diagonal: bool = False) -> str:
    """Points with their names; `diagonal` draws where both axes are equal."""
    right = max([point.x.high for point in points] + [1e-6])
    top = max([point.y.high for point in points] + [1e-6] + [right] * diagonal)
    x, y, parts = _frame(title, across, up, right, top)
    if diagonal:
        end = min(right, top) * 1.05
        parts.append(line(x(0), y(0), x(end), y(end), "#aaaaaa", ' stroke-dasharray="4 3"'))
    for point in points:
        ink, far = colour(point.setting), point.x.value > 0.8 * right
        parts.append(line(x(point.x.low), y(point.y.value), x(point.x.high), y(point.y.value), ink))
        parts.append(line(x(point.x.value), y(point.y.low), x(point.x.value), y(point.y.high), ink))
        parts.append(f'<circle cx="{x(point.x.value):.1f}" cy="{y(point.y.value):.1f}" r="4" fill="{ink}"/>')
        parts.append(
            text(x(point.x.value) + (-7 if far else 7), y(point.y.value) - 6, point.name, "end" if far else "start")
        )
    return document(WIDTH, HEIGHT, parts)


def bars(title: str, across: str, up: str, groups: Mapping[str, Mapping[int, float]]) -> str:
    """For every place on the axis a bar for each group."""
    places = sorted({place for values in groups.values() for place in values})
    top = max([value for values in groups.values() for value in values.values()] + [1e-6])
    _, y, parts = _frame(title, across, up, None, top)
    room = (WIDTH - LEFT - RIGHT) / max(len(places), 1)
    width = room * 0.8 / max(len(groups), 1)
    for column, place in enumerate(places):
        start = LEFT + column * room + room * 0.1
        parts.append(text(start + room * 0.4, HEIGHT - BOTTOM + 16, str(place), "middle"))
        for number, values in enumerate(groups.values()):
            up_to = y(values.get(place, 0.0))
            parts.append(
                f'<rect x="{start + number * width:.1f}" y="{up_to:.1f}" width="{width:.1f}" '
                f'height="{y(0) - up_to:.1f}" fill="{colour(number)}"/>'
            )
    for number, name in enumerate(groups):
        left = LEFT + 150 + 80 * (number % 3)
        parts.append(f'<rect x="{left}" y="{7 + 14 * (number // 3)}" width="10" height="10" fill="{colour(number)}"/>')
        parts.append(text(left + 14, 16 + 14 * (number // 3), name))
    return document(WIDTH, HEIGHT, parts)


def _frame(title: str, across: str, up: str, right: float | None, top: float) -> tuple[Place, Place, list[str]]:
    """Where a value lies, across and up, and the parts of the empty chart; no scale across without `right`."""
    reach, limit = 1.05 * (1.0 if right is None else right), 1.05 * top

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / reach

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / limit

    parts = [text(LEFT, 16, title), text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, "middle")]
    parts.append(f'<g transform="rotate(-90 14 {HEIGHT / 2})">{text(14, HEIGHT / 2, up, "middle")}</g>')
    for value in _ticks(limit):
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "#dddddd"))
        parts.append(text(LEFT - 6, y(value) + 4, f"{value:g}", "end"))
    for value in _ticks(reach) if right is not None else ():
        parts.append(line(x(value), y(0), x(value), y(0) + 4, "#888888"))
        parts.append(text(x(value), HEIGHT - BOTTOM + 16, f"{value:g}", "middle"))
    parts.append(line(LEFT, y(0), WIDTH - RIGHT, y(0), "#888888"))
    return x, y, parts


def _ticks(limit: float) -> list[float]:
    step = next(s for s in STEPS if limit / s <= 6)
    return [round(step * i, 6) for i in range(int(limit / step + 1e-9) + 1)]
