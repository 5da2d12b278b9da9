"""What a caller gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "abort", "error"]

LogProbs = tuple[tuple[int, float], ...]
"""(token id, log-probability): a token's own first, then the most likely ones."""


@dataclass(frozen=True, slots=True)
class ExitReport:
    """Where the work of one output went.

    `layers_run[i] + layers_filled[i] + layers_skipped[i]` is the model's depth for every output token i, counted on
    the position whose hidden state chose it. Rejected drafts, passes to the top and replays after preemption are
    counted apart. Filled layers cost a K/V projection.

    `encoded_tokens` counts what an encoder has read for this output: its source, again after a preemption, and nothing
    where another output of the request had it read. Beside an encoder `cached_prompt_tokens` is 0.

    `exit_histogram` maps layer -> tokens proposed there. `exits` says how the request was served: the exit
    parameters in force, or None when every layer ran; `switched_off` is true where exits were asked for and the
    profitability switch turned them off.
    """

    depth: int
    layers_run: tuple[int, ...]
    layers_filled: tuple[int, ...]
    layers_skipped: tuple[int, ...]
    exit_histogram: Mapping[int, int]
    mean_exit_layer: float
    drafts_proposed: int
    drafts_accepted: int
    top_passes: int
    replayed_tokens: int
    cached_prompt_tokens: int
    exits: Mapping[str, Any] | None
    switched_off: bool
    encoded_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: histogram keys become strings."""
        plain = asdict(self)
        plain["exit_histogram"] = {str(layer): count for layer, count in self.exit_histogram.items()}
        return plain


@dataclass(frozen=True, slots=True)
class Output:
    """One finished output. Where there is an encoder, `prompt_token_ids` are those of the source.

    `token_ids` includes the token that ended it, `text` does not. `exit_layers[i]` is the layer that proposed token i
    and `confidences[i]` the criterion's confidence there (None at the top). `logprobs[i]`, where asked for, lists
    (token id, log-probability): the chosen token, then the most likely ones. `index` counts the outputs of a prompt;
    with n > 1 the first one carries the others as `alternatives`.
    """

    index: int
    text: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    exit_layers: tuple[int, ...]
    confidences: tuple[float | None, ...]
    logprobs: tuple[LogProbs, ...] | None
    finish_reason: FinishReason
    report: ExitReport
    alternatives: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed output: complete characters only. `output` is the whole of it, with the last chunk.

    `exit_layers`, `confidences` and, where asked for, `logprobs` have an entry for each of `token_ids`.
    `prompt_logprobs`, where asked for, come with the first chunk: an entry for each prompt token, that of the first is
    empty. `error` says what went wrong where `finish_reason` is `error`.
    """

    text: str
    token_ids: tuple[int, ...]
    exit_layers: tuple[int, ...]
    confidences: tuple[float | None, ...]
    finish_reason: FinishReason | None = None
    output: Output | None = None
    logprobs: tuple[LogProbs, ...] | None = None
    prompt_logprobs: tuple[LogProbs, ...] | None = None
    error: str | None = None
