"""Drafts that pay: thresholds and draft lengths for `verify`, chosen by measured time.

Nothing can differ under `verify`, so there is no risk to keep, only time to save. Candidates are settings of the path
(`path`) times draft lengths, with the lowest threshold for each draft alone or for all that wait together
(`ExitParams.draft_threshold`). They run in turns on the same prompts; after every round the slower half goes, and the
next round has twice as many prompts (successive halving, Jamieson and Talwalkar 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from offramp.calibrate.measure import Measurer
from offramp.calibrate.path import all_settings, choose
from offramp.calibrate.prompts import Tokens
from offramp.calibrate.results import Results
from offramp.calibrate.risks import Update, results_of
from offramp.errors import InvalidParameter, PackError
from offramp.exits.calibration import DISAGREEMENT, Calibration
from offramp.llm.llm import LLM
from offramp.types.checks import check_integer
from offramp.types.exits import MAX_DRAFT, ExitParams
from offramp.types.sampling import SamplingParams

LOSSES = tuple(float(loss) for loss in np.geomspace(0.01, 0.5, 6))
"""Expected shares of rejected drafts that the candidates' thresholds aim at."""

LENGTHS = (2, 3, 4, 8)

Time = Callable[[ExitParams | None, Sequence[Tokens]], float]
"""Seconds per token of some prompts under exit parameters, or at full depth."""


@dataclass(frozen=True)
class DraftOptions:
    """What to choose drafts for. Validated on construction.

    Args:
        criterion, options: the criterion whose thresholds are set.
        lengths: draft lengths to try, each 1..64.
        max_tokens: most tokens to generate for a prompt.
        batch: prompts that are generated together.

    Raises:
        InvalidParameter: a value outside what is listed above.
    """

    criterion: str = "max_prob"
    options: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = LENGTHS
    max_tokens: int = 256
    batch: int = 1

    def __post_init__(self) -> None:
        for length in self.lengths:
            check_integer("max_draft", length, 1, MAX_DRAFT)
        check_integer("max_tokens", self.max_tokens, 1)
        check_integer("batch", self.batch, 1)


@dataclass(frozen=True, slots=True)
class Race:
    """The fastest candidate, its seconds per token and those of full depth on `prompts` prompts, measured in turns."""

    winner: ExitParams
    seconds: float
    full_depth: float
    prompts: int


def choose_drafts(
    llm: LLM, prompts: Sequence[Tokens], options: DraftOptions, update: Update = lambda done, total, text: None
) -> tuple[Race, Calibration]:
    """The fastest drafts for prompts in random order, and what goes into the exit pack.

    A fifth of the prompts, 64 at most, makes the candidates; the others are raced on.

    Raises:
        InvalidParameter: fewer than two prompts.
        PackError: no exit agrees with full depth often enough to be worth drafting at.
    """
    if len(prompts) < 2:
        raise InvalidParameter("choosing drafts takes at least 2 prompts", param="prompts", hint="give more prompts")
    split = max(1, min(len(prompts) // 5, 64))
    update(0, 1, "what exits say about full-depth outputs")
    with Results(results_of(llm, options.max_tokens)) as results:
        seen = Measurer(llm, results, options.max_tokens).observe(options.criterion, options.options, prompts[:split])
    plain = ExitParams(options.criterion, kv="verify", options=options.options)
    settings = all_settings(seen)
    path = [settings[place] for place in choose(settings, LOSSES)]
    candidates = [
        replace(plain, threshold=s.thresholds, max_draft=n, draft_threshold=floor)
        for s in path
        for n in options.lengths
        for floor in (0.0, min(s.thresholds.values()))
    ]
    if not candidates:
        raise PackError(
            "no exit agrees with full depth often enough to be worth drafting at",
            hint="train its exits with `offramp tune`",
        )
    race = run_race(candidates, prompts[split:], options.batch, _stopwatch(llm, options), update)
    measured = {"seconds_per_token": race.seconds, "seconds_per_token_off": race.full_depth}
    key = replace(llm.calibration_key, kv="verify")
    return race, Calibration(key, 0.0, 0.0, DISAGREEMENT, race.prompts, race.winner, measured)


def run_race(
    candidates: Sequence[ExitParams],
    prompts: Sequence[Tokens],
    first: int,
    time: Time,
    update: Update = lambda done, total, text: None,
) -> Race:
    """Halve the candidates until one is left: the first round has `first` prompts, each further round twice as many.

    Full depth runs before and after every round, so that every candidate finds the prompts in the prefix cache; the
    second time counts. The last round has two candidates at most.
    """
    left, count = list(candidates), min(first, len(prompts))
    while True:
        some = prompts[:count]
        time(None, some)
        seconds: list[float] = []
        for number, candidate in enumerate(left):
            update(number, len(left), f"{len(left)} candidates left, {count} prompts each")
            seconds.append(time(candidate, some))
        full_depth = time(None, some)
        order = sorted(range(len(left)), key=seconds.__getitem__)
        if len(left) <= 2:
            return Race(left[order[0]], seconds[order[0]], full_depth, count)
        left = [left[i] for i in sorted(order[: (len(left) + 1) // 2])]
        count = min(2 * count, len(prompts))


def _stopwatch(llm: LLM, options: DraftOptions) -> Time:
    sampling = SamplingParams(max_tokens=options.max_tokens)

    def time(exit: ExitParams | None, prompts: Sequence[Tokens]) -> float:
        tokens, begin = 0, perf_counter()
        for start in range(0, len(prompts), options.batch):
            outputs = llm.generate(prompts[start : start + options.batch], sampling, "off" if exit is None else exit)
            tokens += sum(len(output.token_ids) for output in outputs)
        return (perf_counter() - begin) / tokens

    return time
