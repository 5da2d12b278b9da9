"""What `offramp bench paper` compares: full depth, the paper's configuration, and one change after the other.

The paper is Miao et al. 2024 (arXiv 2407.20272): rows of a batch climb together and leave together at the first exit
where all of them are sure enough; the KV of the layers not run is filled before the iteration ends; exits score with
the model's own head; softmax response, hidden-state saturation and a classifier are its criteria.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from offramp.config import Batching
from offramp.errors import InvalidParameter
from offramp.exits.calibration import CalibrationKey, dial_positions
from offramp.exits.pack import ExitPack
from offramp.exits.write_calibration import params_said
from offramp.llm.dial import resolve_dial
from offramp.types.checks import check_integer, check_number
from offramp.types.exits import ExitParams

Heads = Literal["whole", "own"]
Family = Literal["full depth", "paper", "step", "ours", "lossless"]

FULL_DEPTH: Literal["full depth"] = "full depth"


class Traffic(NamedTuple):
    """So many `clients`, each with one request under way; without any, arrivals at `load` times the capacity."""

    clients: int = 0
    load: float = 0.0

    @property
    def label(self) -> str:
        """As tables show it."""
        return f"B={self.clients}" if self.clients else f"load {self.load:g}"


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """The grid and how often it is measured.

    Args:
        batches: clients at once, each with one request under way.
        loads: arrivals, as a share of the requests that full depth can take at the largest batch; () leaves them out.
        thresholds: of `max_prob` and `classifier`; the improvements start from the one in the middle.
        saturations: thresholds of `saturation`.
        repeats: rounds that count.
        requests: that arrive in a stretch of arrivals.
        prompts: of the workload that are used, from its beginning.
        max_wait: seconds to wait for a quiet machine before a repeat is tried all the same.
    """

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    loads: tuple[float, ...] = (0.4, 0.7, 1.0)
    thresholds: tuple[float, ...] = (0.6, 0.8, 0.95)
    saturations: tuple[float, ...] = (0.75, 0.9)
    repeats: int = 5
    requests: int = 40
    prompts: int = 128
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        for name, values in (("batch", self.batches), ("thresholds", self.thresholds)):
            if not values:
                raise InvalidParameter(f"`--{name}` holds nothing", param=name)
        for name in ("batches", "loads", "thresholds", "saturations"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                flag = "batch" if name == "batches" else name
                raise InvalidParameter(f"`--{flag}` names a value twice", param=flag)
        for batch in self.batches:
            check_integer("batch", batch, 1)
        for load in self.loads:
            check_number("loads", load, 0, 100, low_open=True)
        for name in ("thresholds", "saturations"):
            for value in getattr(self, name):
                check_number(name, value, 0, 1)
        for name in ("repeats", "requests", "prompts"):
            check_integer(name, getattr(self, name), 1)

    @property
    def middle(self) -> float:
        """The threshold from which the improvements start."""
        return sorted(self.thresholds)[len(self.thresholds) // 2]

    def prompts_under(self, traffic: Traffic) -> int:
        """Prompts of one stretch. Every client has one, and half of them, or three, ask again."""
        clients = traffic.clients
        return clients + max(3, clients // 2) if clients else self.requests


QUICK: Mapping[str, Any] = {
    "batches": (1, 8),
    "loads": (0.7,),
    "thresholds": (0.8,),
    "saturations": (0.75,),
    "repeats": 3,
    "requests": 16,
    "prompts": 48,
}
"""What `--quick` changes."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to serve. `heads` says what exits score: the `whole` vocabulary, or what their `own` pack scores.

    `switch` leaves the profitability switch on, as a server has it.
    """

    name: str
    family: Family
    batching: Batching = "depth"
    exit: ExitParams | None = None
    heads: Heads = "own"
    switch: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        exit = None if self.exit is None else params_said(self.exit)
        return {"name": self.name, "family": self.family, "batching": self.batching, "exit": exit, "heads": self.heads}


OFF = Setting(FULL_DEPTH, FULL_DEPTH)


def settings_for(pack: ExitPack, key: CalibrationKey, grid: PaperSettings) -> tuple[list[Setting], list[str]]:
    """All settings but full depth in the order of the tables, and what this pack has no use for, with the reason."""
    left_out: list[str] = []
    settings = _paper(pack, grid, left_out)
    settings += _improvements(settings[0], pack, key, grid, left_out)
    exit = resolve_dial("lossless", pack, key)
    settings.append(Setting("lossless", "lossless", "depth", exit, "own", switch=True))
    return settings, left_out


def arrival_settings(settings: Sequence[Setting]) -> list[Setting]:
    """Those that arrivals are measured with: the paper's, all that improves it at the same threshold, and lossless."""
    paper = settings[0]
    assert paper.exit is not None
    same = replace(paper.exit, fill_when="lazy")
    best = [s for s in settings if s.family == "step" and s.exit == same][-1]
    return [paper, best, settings[-1]]


def _paper(pack: ExitPack, grid: PaperSettings, left_out: list[str]) -> list[Setting]:
    """The middle threshold of `max_prob` first."""
    asked = [("max_prob", t) for t in sorted(grid.thresholds, key=lambda t: (t != grid.middle, t))]
    if len(pack.exits) > 1:
        asked += [("saturation", t) for t in grid.saturations]
    else:
        left_out.append("saturation: it compares two exits, and the pack has one")
    if _has_classifier(pack):
        asked += [("classifier", t) for t in grid.thresholds]
    else:
        left_out.append("classifier, router: the pack has none")
    if pack.reads_past:
        left_out.append("the whole vocabulary at exits: heads that read the past were trained with their own")
    heads: Heads = "whole" if has_small_heads(pack) else "own"
    ways = [
        Setting(
            f"paper {criterion} {threshold:g}",
            "paper",
            "lockstep",
            ExitParams(criterion=criterion, threshold=threshold, kv="fill", fill_when="iteration"),
            heads,
        )
        for criterion, threshold in asked
    ]
    if heads == "whole":
        # Its norm was trained for its own words: so nobody can say that the paper's policy was given worse heads.
        ways.append(replace(ways[0], name=f"{ways[0].name}, own heads", heads="own"))
    return ways


def _improvements(
    paper: Setting, pack: ExitPack, key: CalibrationKey, grid: PaperSettings, left_out: list[str]
) -> list[Setting]:
    """Each changes one thing of the one before; behind them the other thresholds, and `recompute` instead of `fill`."""
    assert paper.exit is not None
    lazy = replace(paper.exit, fill_when="lazy")
    steps = [
        replace(paper, name="+ compact", family="step", batching="compact"),
        replace(paper, name="+ depth", family="step", batching="depth"),
        replace(paper, name="+ lazy fill", family="step", batching="depth", exit=lazy),
    ]
    if paper.heads == "whole":
        steps.append(replace(steps[-1], name="+ reduced heads", heads="own"))
    else:
        left_out.append("reduced heads: the exits score the whole vocabulary")
    best = steps[-1]
    others = [
        replace(best, name=f"ours max_prob {t:g}", family="ours", exit=replace(lazy, threshold=t))
        for t in grid.thresholds
        if t != grid.middle
    ]
    if _has_classifier(pack):
        exit = replace(lazy, criterion="classifier")
        steps.append(replace(best, name="+ router", exit=exit))
    positions = dial_positions(pack.calibrations, key)
    if positions:
        steps += [replace(best, name=f"+ calibrated {name}", exit=exit) for name, exit in positions.items()]
    elif pack.defaults is not None:
        steps.append(replace(best, name="+ pack's thresholds", exit=replace(pack.defaults, kv="fill")))
    else:
        left_out.append("calibrated thresholds: the pack has none for this model, executor and types of weights")
    recompute = replace(best, name="recompute", family="ours", exit=replace(lazy, kv="recompute"))
    return [*steps, *others, recompute]


def has_small_heads(pack: ExitPack) -> bool:
    """Whether an exit scores less than the whole vocabulary, and could score it: not where heads read the past."""
    return not pack.reads_past and any(spec.vocabulary is not None for spec in pack.exits)


def _has_classifier(pack: ExitPack) -> bool:
    return bool(pack.exits) and all(spec.classifier != "none" for spec in pack.exits)
