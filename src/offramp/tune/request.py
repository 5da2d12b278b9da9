"""What a tuning run is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter, did_you_mean
from offramp.llm.backend import Backend
from offramp.tune.settings import (
    RECIPES,
    CalmSettings,
    DataSettings,
    HeadSettings,
    RouterSettings,
    TrainSettings,
    TrunkSettings,
)
from offramp.types.checks import MAX_THREADS, check_integer

ORDERS = (
    *(("heads",), ("deep",), ("layerskip",), ("router",), ("calm",)),
    *(("heads", "router"), ("deep", "router"), ("layerskip", "router")),
)


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, and how. Validated on construction.

    Args:
        model: an alias, a folder, a hub id or a `.gguf` file; `calm`: the folder of a T5, or empty.
        out: the folder that becomes the exit pack.
        backend, threads: the executor that will serve the model.
        recipes: `heads`, `deep` or `layerskip`, `router`, or one of the former and `router`, in this order; or `calm`.
        exits: exit layers, or `auto`.
        max_exits: `auto`: most exits to choose, 1 to 4.
        work: where data and features are kept, so that runs can share them; None is `work` in `out`.
        start: a pack to go on from, its heads and, with `layerskip`, its trunk; None begins with the model as it is.
        command: as it was given, for the model card.
        resume: go on with the run in `out`.

    Raises:
        InvalidParameter: a value that is not allowed.
    """

    model: str
    out: Path
    backend: Backend
    threads: int | None = None
    recipes: tuple[str, ...] = ("heads",)
    exits: tuple[int, ...] | str = "auto"
    max_exits: int = 2
    work: Path | None = None
    data: DataSettings = field(default_factory=DataSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    trunk: TrunkSettings = field(default_factory=TrunkSettings)
    router: RouterSettings = field(default_factory=RouterSettings)
    calm: CalmSettings = field(default_factory=CalmSettings)
    start: Path | None = None
    command: str = ""
    resume: bool = False

    def __post_init__(self) -> None:
        for recipe in self.recipes:
            if recipe not in RECIPES:
                raise InvalidParameter(
                    f"there is no recipe `{recipe}`", param="recipe", hint=did_you_mean(recipe, RECIPES)
                )
        if self.recipes not in ORDERS:
            raise InvalidParameter(
                "`recipe` must be `heads`, `deep`, `layerskip` or `router`, or one of the former and then `,router`: "
                "routers are trained on finished heads; or `calm`, which trains classifiers of its own",
                param="recipe",
            )
        if self.recipes[0] == "deep":
            object.__setattr__(self, "head", replace(self.head, past="deep"))
        if isinstance(self.exits, str) and self.exits != "auto":
            raise InvalidParameter(
                f"`exits` must be layers such as `10,20`, or `auto`, not {self.exits!r}", param="exits"
            )
        if not self.exits:
            raise InvalidParameter("`exits` names no layer", param="exits", hint="give layers such as `10,20`")
        if self.exits == "auto" and "layerskip" in self.recipes:
            raise InvalidParameter(
                "the recipe `layerskip` moves the layers at which exits pay, so it cannot choose them",
                param="exits",
                hint="give layers, such as `--exits 10,20`",
            )
        if self.trunk_is_frozen and not self.head.trained:
            raise InvalidParameter(
                "these exit heads have nothing to train: no adapter, no norm and no head of their own",
                param="adapter",
                hint="choose an `adapter`",
            )
        if self.recipes == ("calm",):
            self._check_calm()
        if self.start is not None and self.recipes[0] not in ("heads", "deep", "layerskip"):
            raise InvalidParameter(
                f"the recipe `{self.recipes[0]}` cannot go on from another pack", param="start", hint="leave it out"
            )
        if self.start is not None and self.exits == "auto":
            raise InvalidParameter(
                "a pack to go on from has its exits: there is nothing to choose",
                param="exits",
                hint="give its layers, such as `--exits 0`",
            )
        check_integer("max_exits", self.max_exits, 1, 4)
        if self.threads is not None:
            check_integer("threads", self.threads, 1, MAX_THREADS)

    def _check_calm(self) -> None:
        if bool(self.model) == bool(self.calm.shape):
            raise InvalidParameter(
                "the recipe `calm` trains a new T5 of some `shape`, or goes on with a T5's folder: give one of both",
                param="shape",
                hint="such as `--shape layers=4,decoder_layers=16,width=256`, and no model",
            )
        if self.data.data == "self":
            raise InvalidParameter(
                "the recipe `calm` learns a task, so it needs data of it",
                param="data",
                hint='give a `.jsonl` of lines such as {"source": "...", "target": "..."}',
            )

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether heads are trained on the trunk as it is."""
        return self.recipes[0] in ("heads", "deep")

    def settings(self, *, router: bool) -> dict[str, Any]:
        """All settings of heads and trunk, or of routers, by name."""
        if router:
            return asdict(self.router)
        chosen: Sequence[int] | str = list(self.exits) if isinstance(self.exits, tuple) else self.exits
        own = {"exits": chosen, "max_exits": self.max_exits}
        if self.recipes == ("calm",):
            data = {"model": self.model, "data": self.data.data}
            return {**data, "exits": chosen, **asdict(self.train), **asdict(self.calm)}
        start = {} if self.trunk_is_frozen and self.start is None else {"start": self.start and str(self.start)}
        trunk = asdict(self.trunk) if "layerskip" in self.recipes else {}
        return {**own, **asdict(self.data), **asdict(self.head), **asdict(self.train), **trunk, **start}
