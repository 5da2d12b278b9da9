"""Calibration for given risks: Learn-then-Test (Angelopoulos et al. 2021), as CALM uses it (Schuster et al. 2022).

Some of the prompts make a path of ever bolder settings (`path`); the others, which had no say in it, test the settings
in that order (`testing`). What a prompt loses, `losses` says; every setting generates anew.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from time import monotonic
from typing import Any

import numpy as np

from offramp._version import __version__
from offramp.calibrate.bounds import prompts_needed
from offramp.calibrate.losses import LOSSES, Loss, LossName, check_prompts, make_loss
from offramp.calibrate.measure import Measurer
from offramp.calibrate.path import Setting, all_settings, choose, corrected
from offramp.calibrate.prompts import Prompt
from offramp.calibrate.results import Results
from offramp.calibrate.testing import Verdict, fixed_sequence
from offramp.errors import InvalidParameter, PackError
from offramp.exits.calibration import Calibration, CalibrationKey
from offramp.llm.llm import LLM
from offramp.types.checks import check_integer, check_number, check_one_of
from offramp.types.exits import ExitParams, KVPolicy

PATH_SHARE = 0.2
"""The share of the prompts that makes the path."""

CAREFUL, BOLD = 1 / 5, 1.1
"""The path reaches from this share of the smallest risk to this share of the largest, as its own prompts see it."""

PILOTS = 8
"""Settings, at most, that are measured on the prompts that make the path."""

Update = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and a phrase that says so."""


@dataclass(frozen=True)
class RiskOptions:
    """What to calibrate for. Validated on construction.

    Args:
        risks: each in (0, 1): expected losses of a prompt.
        loss: `disagreement`, the share of tokens that differ, `task`, an answer that full depth gets right and exits
            do not, or CALM's `text` and `reference`, which compare whole texts by ROUGE-L; see `losses`.
        delta: the probability, for each risk, that the promise fails; in (0, 1).
        kv: `fill` or `recompute`.
        criterion, options: the criterion whose thresholds are set.
        steps: settings on the path, at most.
        max_tokens: most tokens to generate for a prompt.

    Raises:
        InvalidParameter: a value outside what is listed above.
    """

    risks: tuple[float, ...] = (0.01, 0.02, 0.05)
    delta: float = 0.05
    loss: LossName = "disagreement"
    kv: KVPolicy = "fill"
    criterion: str = "max_prob"
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 12
    max_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value in (*(("risk", risk) for risk in self.risks), ("delta", self.delta)):
            check_number(name, value, 0, 1, low_open=True)
            if value == 1:
                raise InvalidParameter(f"`{name}` must be less than 1", param=name)
        check_one_of("loss", self.loss, LOSSES)
        check_integer("steps", self.steps, 1)
        check_integer("max_tokens", self.max_tokens, 1)
        object.__setattr__(self, "risks", tuple(sorted(set(self.risks))))

    def params(self, setting: Setting) -> ExitParams:
        """A setting as exit parameters."""
        return ExitParams(self.criterion, dict(setting.thresholds), kv=self.kv, options=self.options)


@dataclass(frozen=True)
class RiskReport:
    """The path, what testing it said, and the calibrations that follow: one for each risk that a setting keeps.

    `prompts` is how many the settings were tested on, `layers` how many layers ran for a token, on average, for each
    setting that was tested.
    """

    options: RiskOptions
    key: CalibrationKey
    prompts: int
    path: tuple[Setting, ...]
    verdict: Verdict
    layers: tuple[float, ...]
    calibrations: tuple[Calibration, ...]


def calibrate_risks(
    llm: LLM, prompts: Sequence[Prompt], options: RiskOptions, update: Update = lambda done, total, text: None
) -> RiskReport:
    """Calibrate for `options.risks` on prompts in random order; what was measured before is not measured again.

    Raises:
        InvalidParameter: too few prompts to show the smallest risk, even if nothing were lost; prompts without
            completions where the loss compares with them; or, for `task`, such that full depth gives none of them.
        PackError: no exit agrees with full depth often enough for any of the risks.
    """
    split = max(1, round(PATH_SHARE * len(prompts)))
    makes_path, tests = prompts[:split], prompts[split:]
    needed = prompts_needed(options.risks[0], options.delta)
    if len(tests) < needed:
        raise InvalidParameter(
            f"a risk of {options.risks[0]:g} takes at least {needed} prompts to show, and there are {len(tests)} "
            f"(of {len(prompts)}, a fifth makes the path)",
            param="prompts",
            hint="give more prompts, or larger risks",
        )
    key = replace(llm.calibration_key, kv=options.kv)
    with Results(results_of(llm, options.max_tokens)) as results:
        progress = _Progress(update)
        measurer = Measurer(llm, results, options.max_tokens, progress)
        loss = make_loss(options.loss, measurer)
        progress.total = loss.runs * ((2 + PILOTS) * len(makes_path) + options.steps * len(tests))
        check_prompts(options.loss, prompts, makes_path, measurer)
        path = _make_path(measurer, loss, makes_path, options)
        progress.total = progress.done + len(path) * loss.runs * len(tests)
        layers: list[float] = []

        def losses(setting: Setting) -> Generator[float, None, None]:
            run = tokens = 0
            layers.append(0.0)
            for lost in loss.of(options.params(setting), tests):
                run, tokens = run + lost.run, tokens + lost.tokens
                layers[-1] = run / tokens
                yield lost.loss

        verdict = fixed_sequence(path, losses, len(tests), options.risks, options.delta)
    calibrations = _calibrations(key, path, verdict, layers, options)
    return RiskReport(options, key, len(tests), tuple(path), verdict, tuple(layers), calibrations)


def _make_path(measurer: Measurer, loss: Loss, prompts: Sequence[Prompt], options: RiskOptions) -> list[Setting]:
    """Settings whose losses on `prompts` reach from well within the smallest risk to just beyond the largest."""
    low, high = CAREFUL * options.risks[0], BOLD * options.risks[-1]
    seen = measurer.observe(options.criterion, options.options, [prompt.tokens for prompt in prompts])
    settings = all_settings(seen, whole=loss.whole)
    if not settings:
        raise PackError("no exit ever agrees with full depth", hint="train its exits with `offramp tune`")
    pilots = sorted({0, *choose(settings, _between(low / 16, high, PILOTS))})
    losses: list[float] = []
    for place in pilots:
        losses.append(fmean(lost.loss for lost in loss.of(options.params(settings[place]), prompts)))
        if losses[-1] > high:
            break
    path = corrected(settings, pilots[: len(losses)], losses)
    places = choose(path, _between(low, high, options.steps))
    if not places:
        raise PackError(
            f"{losses[0]:.1%} {loss.of_what} even at thresholds that hardly any token reaches",
            hint="train its exits with `offramp tune`, or calibrate for larger risks",
        )
    return [path[place] for place in places]


def _between(low: float, high: float, count: int) -> list[float]:
    return [float(limit) for limit in np.geomspace(low, high, count)]


def results_of(llm: LLM, max_tokens: int) -> dict[str, Any]:
    """Everything that a result depends on, besides the setting and the prompt."""
    key = llm.calibration_key
    return {
        "offramp": __version__,
        "model": key.model,
        "pack": key.pack,
        "executor": key.executor,
        "weights": key.weights,
        "kv_dtype": key.kv_dtype,
        "batching": llm.engine.config.batching,
        "max_tokens": max_tokens,
    }


def _calibrations(
    key: CalibrationKey, path: Sequence[Setting], verdict: Verdict, layers: Sequence[float], options: RiskOptions
) -> tuple[Calibration, ...]:
    calibrations = []
    for risk, place in verdict.accepted.items():
        if place is None:
            continue
        test = verdict.tested[place]
        measured = {
            "loss": test.mean,
            "p_value": test.p_values[risk],
            "layers": layers[place],
            "max_tokens": options.max_tokens,
        }
        params = options.params(path[place])
        calibrations.append(Calibration(key, risk, options.delta, options.loss, test.count, params, measured))
    return tuple(calibrations)


class _Progress:
    """Counts prompts, and says how long the rest takes if no setting fails early."""

    def __init__(self, update: Update) -> None:
        self._update, self._start = update, monotonic()
        self.total = self.done = self._new_prompts = self._new_tokens = 0

    def __call__(self, prompts: int, new_prompts: int, new_tokens: int) -> None:
        self.done += prompts
        self._new_prompts += new_prompts
        self._new_tokens += new_tokens
        seconds = max(monotonic() - self._start, 1e-9)
        text = f"{self.done} of at most {self.total} prompts, {self._new_tokens / seconds:.0f} tokens/s"
        if self._new_prompts:
            left = (self.total - self.done) * seconds / self._new_prompts
            text += f", at most {left / 60:.0f} min to go"
        self._update(self.done, self.total, text)
