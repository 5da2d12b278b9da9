"""What a run of `offramp bench engine` measured, as values that become JSON and come back; and reports as files.

    {"format": 1, "kind": "engine", "date": ..., "machine": {...}, "code": {...}, "settings": {...},
     "ceilings": {...} or null,
     "engines": [{"name", "peer", "precision", "bits", "ours", "python", "facts": {...}, "peak_bytes", "absent"}],
                                        facts of ours have `weight_bytes`, read for one token; null if unknown
     "cells": [{"engine": "offramp int8", "task": "decode/8", "unit": "tokens/s",
                "repeats": [{"round": 0, "value": 231.0, "seconds": 2.2, "others": 0.01, "steal": 0.0, "clean": true}],
                "median", "low", "high", "rejected"}]}

A cell is one engine at one task. Of tokens/s more is better, of ms (the time of a step) less.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, NamedTuple, TypeVar

from offramp.bench.machine import describe_code, describe_machine
from offramp.errors import InvalidParameter
from offramp.files import replace_file

FORMAT = 1


class Task(NamedTuple):
    """`decode` of a batch, `prefill` of a prompt of `size` tokens, or one `step` with `size` rows of one sequence."""

    kind: str
    size: int

    @property
    def label(self) -> str:
        """As JSON names it."""
        return f"{self.kind}/{self.size}"

    @property
    def unit(self) -> str:
        """Of its values."""
        return "ms" if self.kind == "step" else "tokens/s"


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measurement; `others` and `steal` are shares of one core that others had meanwhile, None if unknown."""

    round: int
    value: float
    seconds: float
    others: float | None
    steal: float | None
    clean: bool


class Spread(NamedTuple):
    """Median, smallest and largest."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of some values; None if there are none."""
    known = list(values)
    return Spread(median(known), min(known), max(known)) if known else None


@dataclass
class Cell:
    """All repeats of one engine at one task, rejected ones included."""

    engine: str
    task: str
    unit: str
    repeats: list[Repeat] = field(default_factory=list)

    @property
    def clean(self) -> dict[int, float]:
        """Round -> value, of the repeats that count."""
        return {r.round: r.value for r in self.repeats if r.clean}

    @property
    def rejected(self) -> int:
        """Repeats during which the machine was not ours."""
        return sum(not r.clean for r in self.repeats)

    @property
    def spread(self) -> Spread | None:
        """Over the repeats that count; None if there are none."""
        return spread(self.clean.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values with the statistics spelled out."""
        seen = self.spread
        statistics = dict(zip(Spread._fields, seen or (None, None, None), strict=True))
        return {**asdict(self), **statistics, "rejected": self.rejected}


def ratio(ours: Cell, theirs: Cell) -> Spread | None:
    """Ours / theirs, round by round, so that what drifted for both cancels; None without a common round.

    A round in which theirs is 0 (tokens that came all at once have no time between them) says nothing.
    """
    rounds = sorted(ours.clean.keys() & theirs.clean.keys())
    return spread(ours.clean[r] / theirs.clean[r] for r in rounds if theirs.clean[r])


@dataclass
class EngineRecord:
    """An engine that was asked for: facts about it, or why it is absent."""

    name: str
    peer: str
    precision: str
    bits: int
    ours: bool
    python: str
    facts: dict[str, Any] = field(default_factory=dict)
    peak_bytes: int | None = None
    absent: str | None = None


@dataclass
class Report:
    """What reports of both kinds begin with. `KIND` is the word after `offramp bench`."""

    KIND: ClassVar[str]

    date: str
    machine: dict[str, Any]
    code: dict[str, Any]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the statistics spelled out."""
        return {"format": FORMAT, "kind": self.KIND, **asdict(self)}

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        """The inverse of `to_dict`."""
        return cls(**{name: value for name, value in values.items() if name not in ("format", "kind")})


R = TypeVar("R", bound=Report)


@dataclass
class EngineReport(Report):
    """Everything a run measured so far."""

    KIND = "engine"

    engines: list[EngineRecord] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    ceilings: dict[str, float] | None = None

    def cell(self, engine: str, task: Task) -> Cell | None:
        """What an engine reached at a task, if it was measured."""
        return next((c for c in self.cells if c.engine == engine and c.task == task.label), None)

    def record(self, name: str) -> EngineRecord:
        """The engine called `name`."""
        return next(e for e in self.engines if e.name == name)

    @property
    def present(self) -> list[EngineRecord]:
        """Engines that were measured."""
        return [e for e in self.engines if e.absent is None]

    def to_dict(self) -> dict[str, Any]:
        """As in the module's description."""
        return {**super().to_dict(), "cells": [cell.to_dict() for cell in self.cells]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EngineReport:
        """The inverse of `to_dict`."""
        cells = [
            Cell(c["engine"], c["task"], c["unit"], [Repeat(**repeat) for repeat in c["repeats"]])
            for c in values["cells"]
        ]
        engines = [EngineRecord(**e) for e in values["engines"]]
        return super().from_dict({**values, "engines": engines, "cells": cells})


def begin_report(kind: type[R], settings: dict[str, Any]) -> R:
    """A report of a run that begins now, on this machine; tuples in its settings become lists, as JSON has them."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
    return kind(now, describe_machine(), describe_code(), plain)


def read_report(path: Path, kind: type[R]) -> R:
    """A report that `write_json` wrote.

    Raises:
        InvalidParameter: the file is not such a report.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or values["kind"] != kind.KIND:
            raise ValueError
        return kind.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidParameter(
            f"`{path}` is not a report of `offramp bench {kind.KIND}` that this version can read",
            param="resume",
            hint="leave out `--resume`, or give the `--out` of the run to go on with",
        ) from error


def earlier_report(path: Path, fresh: R, may_differ: Collection[str]) -> R | None:
    """The report of the run that a new one, `fresh`, goes on with; None if there is none yet.

    Raises:
        InvalidParameter: it was measured otherwise: on another machine, or with other settings than `may_differ`. Lists
            among these may only grow: what there is would be left out of the new report, and so be lost.
    """
    if not path.is_file():
        return None
    earlier = read_report(path, type(fresh))
    settings = fresh.settings
    differ = [n for n in settings if n not in may_differ and earlier.settings.get(n) != settings[n]]
    differ += [n for n in ("cpu", "cores") if earlier.machine.get(n) != fresh.machine[n]]
    if differ:
        raise InvalidParameter(
            f"`{path}` was measured otherwise: {', '.join(differ)} differ",
            param="resume",
            hint="leave out `--resume`, or repeat the flags of that run",
        )
    for name in may_differ:
        if isinstance(settings[name], list):
            check_keeps(path, name, earlier.settings.get(name) or (), settings[name])
    return earlier


def check_keeps(path: Path, what: str, there: Iterable[object], wanted: Collection[object]) -> None:
    """What a report has must be wanted by the run that goes on with it.

    Raises:
        InvalidParameter: it would be lost.
    """
    lost = ", ".join(str(one) for one in there if one not in wanted)
    if lost:
        raise InvalidParameter(
            f"`{path}` has {what} {lost}, which this run would leave out of it",
            param="resume",
            hint="name them as well, they are not measured again; or choose another `--out`",
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON; whoever reads meanwhile sees the old file or the new one."""
    replace_file(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
