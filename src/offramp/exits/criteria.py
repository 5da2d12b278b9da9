"""Exit criteria: what is known at an exit -> a confidence in [0, 1], larger is surer.

A criterion is a frozen dataclass whose fields are its options. It declares what it reads, so that nothing unread is
computed, and works on a batch of rows at a time. It keeps no state: a token's signals at the exits it was already
tested at come with the row. Third-party packages add criteria through the entry-point group `offramp.criteria`; the
built-in ones satisfy the same contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, NamedTuple, Protocol

from offramp.errors import InvalidParameter, did_you_mean
from offramp.types.checks import check_integer
from offramp.types.executor import Feature

ENTRY_POINT_GROUP = "offramp.criteria"


class Signals(NamedTuple):
    """What is known about one token at one exit.

    `boundary` is the exit's number (1..S), `layer` its layer, `output_index` the place in the output of the token
    that would be chosen, `token` that token (None where the exit cannot choose, or the criterion does not read it),
    `features` what the criterion asked for, `earlier` the same token's signals at the exits tested before, lowest
    first.
    """

    boundary: int
    layer: int
    output_index: int
    token: int | None
    features: Mapping[Feature, float]
    earlier: tuple[Signals, ...] = ()


class Criterion(Protocol):
    """The contract of a criterion. Instances are hashable and equal when their options are."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[Feature]]
    reads_token: ClassVar[bool]

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        """One value in [0, 1] per row; None where the criterion does not fire at all."""
        ...


@dataclass(frozen=True)
class MaxProb:
    """The largest probability ("softmax response"; Geifman & El-Yaniv 2017, EE-LLM)."""

    name: ClassVar[str] = "max_prob"
    needs: ClassVar[frozenset[Feature]] = frozenset({"max_prob"})
    reads_token: ClassVar[bool] = True

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [row.features["max_prob"] for row in rows]


@dataclass(frozen=True)
class Margin:
    """The gap between the two largest probabilities (CALM's "softmax", breaking ties)."""

    name: ClassVar[str] = "margin"
    needs: ClassVar[frozenset[Feature]] = frozenset({"margin"})
    reads_token: ClassVar[bool] = True

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [row.features["margin"] for row in rows]


@dataclass(frozen=True)
class Entropy:
    """One minus the normalised entropy (BranchyNet, DSSD)."""

    name: ClassVar[str] = "entropy"
    needs: ClassVar[frozenset[Feature]] = frozenset({"entropy"})
    reads_token: ClassVar[bool] = True

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [1.0 - row.features["entropy"] for row in rows]


@dataclass(frozen=True)
class Saturation:
    """Cosine of the hidden state with the one at the previous exit (CALM); never fires at the first exit."""

    name: ClassVar[str] = "saturation"
    needs: ClassVar[frozenset[Feature]] = frozenset({"saturation"})
    reads_token: ClassVar[bool] = False

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [row.features.get("saturation") for row in rows]


@dataclass(frozen=True)
class Classifier:
    """The exit pack's learned classifier on the boundary hidden state (CALM, TIDE)."""

    name: ClassVar[str] = "classifier"
    needs: ClassVar[frozenset[Feature]] = frozenset({"classifier"})
    reads_token: ClassVar[bool] = False

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [row.features["classifier"] for row in rows]


@dataclass(frozen=True)
class Patience:
    """1 where the chosen token is unchanged over the last `exits` exits before this one (PABEE, Zhou et al. 2020)."""

    name: ClassVar[str] = "patience"
    needs: ClassVar[frozenset[Feature]] = frozenset()
    reads_token: ClassVar[bool] = True

    exits: int = 1

    def __post_init__(self) -> None:
        check_integer("exits", self.exits, 1)

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [float(self._unchanged(row)) for row in rows]

    def _unchanged(self, row: Signals) -> bool:
        last = row.earlier[-self.exits :]
        return len(last) == self.exits and all(r.token == row.token for r in last)


@dataclass(frozen=True)
class Fixed:
    """1 at one given layer: a static depth."""

    name: ClassVar[str] = "fixed"
    needs: ClassVar[frozenset[Feature]] = frozenset()
    reads_token: ClassVar[bool] = False

    layer: int

    def __post_init__(self) -> None:
        check_integer("layer", self.layer, 0)

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [float(row.layer == self.layer) for row in rows]


@dataclass(frozen=True)
class Never:
    """Does not fire: full depth through the same path."""

    name: ClassVar[str] = "never"
    needs: ClassVar[frozenset[Feature]] = frozenset()
    reads_token: ClassVar[bool] = False

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [None for _ in rows]


@dataclass(frozen=True)
class Replay:
    """1 at the layer a trace gives for this output position: repeats the exits of a recorded run."""

    name: ClassVar[str] = "replay"
    needs: ClassVar[frozenset[Feature]] = frozenset()
    reads_token: ClassVar[bool] = False

    exit_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "exit_layers", tuple(self.exit_layers))
        for layer in self.exit_layers:
            check_integer("exit_layers", layer, 0)

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        return [
            float(row.output_index < len(self.exit_layers) and row.layer == self.exit_layers[row.output_index]) or None
            for row in rows
        ]


BUILT_IN: tuple[type[Criterion], ...] = (
    MaxProb,
    Margin,
    Entropy,
    Saturation,
    Classifier,
    Patience,
    Fixed,
    Never,
    Replay,
)


@cache
def plugins() -> dict[str, str]:
    """Criteria offered by installed packages: name -> `module:attribute`."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def criterion_type(name: str) -> type[Criterion]:
    """The criterion registered under `name`.

    Raises:
        InvalidParameter: no such criterion, or the package that offers it cannot be imported.
    """
    for built_in in BUILT_IN:
        if built_in.name == name:
            return built_in
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            loaded: type[Criterion] = point.load()
        except Exception as error:
            raise InvalidParameter(
                f"criterion `{name}` from `{point.value}` cannot be loaded: {error}",
                param="criterion",
                hint="reinstall or remove the package that provides it",
            ) from error
        if not is_dataclass(loaded):
            raise InvalidParameter(
                f"criterion `{name}` from `{point.value}` is not a dataclass",
                param="criterion",
                hint="see examples/plugin-criterion for what a criterion must be",
            )
        return loaded
    raise InvalidParameter(
        f"unknown criterion `{name}`",
        param="criterion",
        hint=did_you_mean(name, [c.name for c in BUILT_IN] + list(plugins())),
    )


def make_criterion(name: str, options: Mapping[str, Any]) -> Criterion:
    """The criterion `name` with its options.

    Raises:
        InvalidParameter: unknown name, or unknown, missing or disallowed options.
    """
    kind = criterion_type(name)
    declared = fields(kind)  # type: ignore[arg-type]
    known = [option.name for option in declared]
    for given in options:
        if given not in known:
            hint = did_you_mean(given, known) if known else f"`{name}` has no options"
            raise InvalidParameter(f"criterion `{name}` has no option `{given}`", param="options", hint=hint)
    for option in declared:
        if option.name not in options and option.default is MISSING and option.default_factory is MISSING:
            hint = f"give `{option.name}` and its value in `options`"
            raise InvalidParameter(f"criterion `{name}` needs the option `{option.name}`", param="options", hint=hint)
    try:
        criterion = kind(**options)
        hash(criterion)
        return criterion
    except TypeError as error:
        raise InvalidParameter(
            f"criterion `{name}`: {error}",
            param="options",
            hint=f"its options are {', '.join(f'`{k}`' for k in known)}" if known else None,
        ) from error
