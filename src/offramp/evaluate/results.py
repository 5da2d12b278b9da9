"""What an evaluation finds: plain values that print, compare and become JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from offramp.evaluate.bootstrap import Interval


@dataclass(frozen=True, slots=True)
class Sample:
    """An output in pieces: each the text that a token completed, and the layer that proposed the token."""

    prompt: str
    pieces: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SettingReport:
    """One setting of the dial, with 95% intervals over prompts.

    Args:
        name: as it was asked for.
        measures: `differ` (share of generated tokens that differ from one full-depth pass over the same tokens, a mean
            over prompts), `rouge_l` and `chrf` (of outputs, against full depth's), `perplexity` (of outputs, under
            full depth), `exit_layer` (mean), `run`, `filled` and `skipped` (layers for a token), `tokens_per_second`;
            for each set with answers `accuracy/SET` and `points_lost/SET` (accuracy of `off` less this one's, paired
            over prompts), and over all of them `task` (share of answers right under `off` and wrong here).
        speedup: tokens per second over those of `off`, measured in turns.
        exit_shares: exit layer -> share of tokens proposed there; the depth stands for the top.
        drafts: proposed and accepted.
        samples: some outputs.
    """

    name: str
    measures: dict[str, Interval]
    speedup: Interval
    exit_shares: dict[int, float]
    drafts: tuple[int, int]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class EvalReport:
    """All settings; `about` says what was evaluated, and `prompts` on how many prompts of which set."""

    about: dict[str, Any]
    depth: int
    prompts: dict[str, int]
    settings: tuple[SettingReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: an interval is {"value", "low", "high"}."""
        settings = []
        for setting in self.settings:
            values = asdict(setting)
            values["measures"] = {name: interval._asdict() for name, interval in setting.measures.items()}
            values["speedup"] = setting.speedup._asdict()
            settings.append(values)
        return {"format": 1, **asdict(self), "settings": settings}
