"""The dial in requests: its forms, what the server allows, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from offramp.errors import InvalidParameter
from offramp.exits.calibration import read_risk
from offramp.serve.http.fields import Body
from offramp.serve.protocol import Dial
from offramp.serve.settings import ServerSettings, shown_dial
from offramp.types.exits import MAX_DRAFT, ExitParams

Word = Literal["off", "lossless"]

TRACE = Field(False, description="Tell where each token left, in `exit_trace` of each choice.")


class AtWord(Body):
    """`off` or `lossless`; without `mode`, what the server has as its default."""

    mode: Word | None = None
    trace: bool = TRACE


class AtRisk(Body):
    """A risk that the exit pack has a calibration for."""

    risk: Annotated[float, Field(ge=0, le=1)] | str = Field(description="0.02, or with the loss it is of: `task:0.02`.")
    trace: bool = TRACE


class ByCriterion(Body):
    """Exit parameters by hand: the fields of `ExitParams`."""

    criterion: str = "max_prob"
    threshold: float | dict[str, float] = Field(0.9, description="A number in [0, 1], or one for each exit layer.")
    min_layer: int = Field(0, ge=0, le=2**31)
    kv: Literal["fill", "recompute", "verify"] = "fill"
    fill_when: Literal["lazy", "iteration"] = "lazy"
    max_draft: int = Field(4, ge=1, le=MAX_DRAFT)
    draft_threshold: float = Field(0.0, ge=0, le=1)
    recompute_cap: int = Field(16, ge=1, le=2**31)
    decay: float | None = Field(None, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)
    trace: bool = TRACE

    def params(self) -> ExitParams:
        """The exit parameters.

        Raises:
            InvalidParameter: a value that is not allowed.
        """
        values = self.model_dump(exclude={"trace"}, exclude_unset=True)
        if isinstance(self.threshold, dict):
            values["threshold"] = {_layer(name): value for name, value in self.threshold.items()}
        return ExitParams(**values)


def _layer(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        raise InvalidParameter(f"`threshold` names `{name}`, which is no layer", param="exit.threshold")
    return int(name)


def _form(value: Any) -> str:
    """The tag of a value's form. Tags appear in the paths of errors, where no field may be called the same."""
    if not isinstance(value, Mapping | Body):
        return "word form"
    names = set(value) if isinstance(value, Mapping) else value.model_fields_set
    if "risk" in names:
        return "risk form"
    return "mode form" if "mode" in names or names <= {"trace"} else "criterion form"


ExitDial = Annotated[
    Annotated[Word, Tag("word form")]
    | Annotated[AtWord, Tag("mode form")]
    | Annotated[AtRisk, Tag("risk form")]
    | Annotated[ByCriterion, Tag("criterion form")],
    Discriminator(_form),
]
"""The forms of `exit`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the dial stands for one request. `shown` is what it asked for, in the form it was asked in."""

    dial: Dial
    shown: Any
    trace: bool = False


def read_dial(exit: Word | AtWord | AtRisk | ByCriterion | None, settings: ServerSettings) -> Asked:
    """What a request asks for.

    Raises:
        InvalidParameter: no position of the dial, or one that the server's policy does not allow.
    """
    trace = isinstance(exit, Body) and exit.trace
    if isinstance(exit, AtWord):
        exit = exit.mode
    if exit is None:
        return Asked(settings.exit, shown_dial(settings.exit), trace)
    if isinstance(exit, str):
        return Asked(exit, exit, trace)
    shown = exit.model_dump(exclude={"trace"}, exclude_unset=True)
    if isinstance(exit, AtRisk):
        _check_risk(exit.risk, settings.max_risk)
        return Asked(exit.risk, shown, trace)
    if not settings.allow_criteria:
        raise InvalidParameter(
            "this server takes no criterion in `exit`",
            param="exit",
            hint='allowed: "off", "lossless", or a risk such as {"risk": 0.02}',
        )
    return Asked(exit.params(), shown, trace)


def _check_risk(asked: float | str, most: float | None) -> None:
    try:
        risk = read_risk(str(asked))[1]
    except ValueError:
        risk = -1.0
    if not 0 <= risk <= 1:
        hint = 'a risk is a number such as 0.02, or with the loss it is of: "task:0.02"'
        raise InvalidParameter(f"`exit.risk` cannot be {asked!r}", param="exit.risk", hint=hint)
    if most is not None and risk > most:
        raise InvalidParameter(
            f"`exit.risk` is {risk:g}, this server allows at most {most:g}",
            param="exit.risk",
            hint='ask for less, or for "lossless"',
        )
