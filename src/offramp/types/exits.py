"""How a request leaves the network early."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer, check_number, check_one_of, known_fields

KVPolicy = Literal["fill", "recompute", "verify"]
FillWhen = Literal["lazy", "iteration"]

MAX_DRAFT = 64

NEVER = 1e-9
"""Drafts that are less likely than this to be right are as good as wrong."""


@dataclass(frozen=True, slots=True)
class ExitParams:
    """Exit parameters of one request, validated on construction and fixed at admission.

    Args:
        criterion: name of a registered criterion (`offramp.exits`), e.g. `max_prob`.
        threshold: a token leaves where its confidence is at least this, in [0, 1]: one number, or exit layer ->
            number (layers left out are not exits for this request).
        min_layer: exits below this layer are not tested.
        kv: what happens to the KV of skipped layers: `fill` (hidden-state propagation, CALM), `recompute` (EE-LLM,
            FREE) or `verify` (LayerSkip's self-speculation; output equals exits off).
        fill_when: `lazy` fills before the next token that climbs as far, `iteration` before the sequence's next
            token. Both give the same tokens.
        max_draft: `verify`: drafts before all tokens run to the top, 1..64.
        draft_threshold: `verify`: a token becomes a draft only where its confidence times those of the drafts that
            wait, which is how likely all of them are right, is at least this, too; in [0, 1] (EAGLE-2, Li et al.
            2024, values paths of drafts so).
        recompute_cap: `recompute`: exits in a row before a token must run at full depth.
        decay: CALM's position decay: with temperature tau = `decay` the threshold at output position t of at most N
        is
            clip(0.9 threshold + 0.1 exp(-tau t / N), 0, 1); None keeps it constant.
        options: the criterion's own parameters, e.g. {"exits": 2} for `patience`.

    Raises:
        InvalidParameter: a value outside what is listed above.
    """

    criterion: str = "max_prob"
    threshold: float | Mapping[int, float] = 0.9
    min_layer: int = 0
    kv: KVPolicy = "fill"
    fill_when: FillWhen = "lazy"
    max_draft: int = 4
    draft_threshold: float = 0.0
    recompute_cap: int = 16
    decay: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, str) or not self.criterion:
            raise InvalidParameter("`criterion` must be a name", param="criterion")
        if isinstance(self.threshold, Mapping):
            if not self.threshold:
                raise InvalidParameter("`threshold` names no exit layer", param="threshold")
            object.__setattr__(self, "threshold", dict(self.threshold))
            for layer, value in self.threshold.items():
                check_integer("threshold", layer, 0)
                check_number("threshold", value, 0, 1)
        else:
            check_number("threshold", self.threshold, 0, 1)
        check_integer("min_layer", self.min_layer, 0)
        check_one_of("kv", self.kv, get_args(KVPolicy))
        check_one_of("fill_when", self.fill_when, get_args(FillWhen))
        check_integer("max_draft", self.max_draft, 1, MAX_DRAFT)
        check_number("draft_threshold", self.draft_threshold, 0, 1)
        check_integer("recompute_cap", self.recompute_cap, 1)
        if self.decay is not None:
            check_number("decay", self.decay, 0, math.inf)
        if not isinstance(self.options, Mapping):
            raise InvalidParameter("`options` must map names to values", param="options")
        object.__setattr__(self, "options", dict(self.options))

    def threshold_at(self, layer: int, progress: float) -> float | None:
        """The threshold at an exit layer, or None where this request does not exit.

        `progress` is t / N in CALM's decaying threshold (Schuster et al. 2022, eq. 5): output position over the
        most there may be.
        """
        if layer < self.min_layer:
            return None
        threshold = self.threshold.get(layer) if isinstance(self.threshold, Mapping) else self.threshold
        if threshold is None or self.decay is None:
            return threshold
        return min(1.0, max(0.0, 0.9 * threshold + 0.1 * math.exp(-self.decay * progress)))

    def draft_floor(self, waiting: Iterable[float | None]) -> float:
        """The confidence that one more draft takes by `draft_threshold`, behind drafts of the confidences `waiting`."""
        if not self.draft_threshold:
            return 0.0
        return self.draft_threshold / max(math.prod(c for c in waiting if c is not None), NEVER)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExitParams:
        """Build from a mapping; unknown names are refused with the nearest match."""
        return cls(**known_fields(cls, values, "exit parameter"))


LOSSLESS = ExitParams(criterion="max_prob", threshold=0.6, kv="verify")
"""What `exit="lossless"` means: drafts at exits, verified at the top; output equals exits off."""
