"""What exits did for a request: the object `exit` of answers, and traces of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from pydantic import BaseModel, Field

from offramp.serve.http.dial import Asked
from offramp.serve.protocol import Piece
from offramp.tokenizer import Tokenizer
from offramp.types.output import ExitReport


class ExitSummary(BaseModel):
    """Where the work went, summed over the choices of an answer."""

    asked: Any = Field(description="The dial, as the request or the server's default has it.")
    resolved: dict[str, Any] | None = Field(description="The exit parameters in force; null where every layer ran.")
    num_layers: int = Field(description="Of the model.")
    mean_depth: float = Field(description="The layer that tokens were chosen at, on average.")
    layers_run: int = Field(description="Layers computed, over all output tokens.")
    layers_filled: int = Field(description="Layers of which only K and V were projected.")
    layers_skipped: int
    histogram: dict[str, int] = Field(description="Layer to tokens chosen there.")
    drafts_proposed: int
    drafts_accepted: int
    acceptance: float | None = Field(description="Accepted over proposed drafts; null without drafts.")
    switched_off: bool = Field(description="Exits were asked for, and cost more than they saved.")


class TracedToken(BaseModel):
    """Where one token left."""

    id: int
    token: str
    layer: int
    confidence: float | None = Field(description="The criterion's; null at the top.")


def merged(reports: Iterable[ExitReport]) -> ExitReport | None:
    """One report over several outputs; None over none."""
    some = list(reports)
    if len(some) < 2:
        return some[0] if some else None
    histogram = sum((Counter(report.exit_histogram) for report in some), Counter[int]())
    tokens = sum(histogram.values())
    return ExitReport(
        depth=some[0].depth,
        layers_run=tuple(chain.from_iterable(report.layers_run for report in some)),
        layers_filled=tuple(chain.from_iterable(report.layers_filled for report in some)),
        layers_skipped=tuple(chain.from_iterable(report.layers_skipped for report in some)),
        exit_histogram=dict(sorted(histogram.items())),
        mean_exit_layer=sum(layer * count for layer, count in histogram.items()) / max(tokens, 1),
        drafts_proposed=sum(report.drafts_proposed for report in some),
        drafts_accepted=sum(report.drafts_accepted for report in some),
        top_passes=sum(report.top_passes for report in some),
        replayed_tokens=sum(report.replayed_tokens for report in some),
        cached_prompt_tokens=sum(report.cached_prompt_tokens for report in some),
        exits=some[0].exits,
        switched_off=any(report.switched_off for report in some),
        encoded_tokens=sum(report.encoded_tokens for report in some),
    )


def exit_summary(report: ExitReport | None, asked: Asked, num_layers: int) -> dict[str, Any]:
    """The object `exit` of an answer: `ExitSummary`."""
    proposed, accepted = (report.drafts_proposed, report.drafts_accepted) if report else (0, 0)
    return {
        "asked": asked.shown,
        "resolved": dict(report.exits) if report and report.exits else None,
        "num_layers": num_layers,
        "mean_depth": round(report.mean_exit_layer, 4) if report else 0.0,
        "layers_run": sum(report.layers_run) if report else 0,
        "layers_filled": sum(report.layers_filled) if report else 0,
        "layers_skipped": sum(report.layers_skipped) if report else 0,
        "histogram": {str(layer): count for layer, count in report.exit_histogram.items()} if report else {},
        "drafts_proposed": proposed,
        "drafts_accepted": accepted,
        "acceptance": round(accepted / proposed, 4) if proposed else None,
        "switched_off": report is not None and report.switched_off,
    }


def joined_traces(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The field `exit_trace` of a whole choice, from its parts; no field where they have none."""
    traces = [part["exit_trace"] for part in parts if "exit_trace" in part]
    return {"exit_trace": list(chain.from_iterable(traces))} if traces else {}


def exit_trace(piece: Piece, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokens of a piece: `TracedToken`s."""
    return [
        {
            "id": token,
            "token": tokenizer.token_bytes(token).decode(errors="replace"),
            "layer": layer,
            "confidence": sure,
        }
        for token, layer, sure in zip(piece.token_ids, piece.exit_layers, piece.confidences, strict=True)
    ]
