"""What a request says: its body, by the kind of endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp.bench.load.client import Target
from offramp.bench.load.samples import Sample
from offramp.errors import InvalidParameter

ENDPOINTS = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}
"""The kinds, which `vllm bench serve` calls backends, each with its usual endpoint."""


@dataclass(frozen=True, slots=True)
class Form:
    """How samples become requests.

    Args:
        kind: one of `ENDPOINTS`.
        model: its name in requests.
        endpoint: the path; by default the kind's.
        ignore_eos: generate all tokens that a sample asks for.
        extra: what else every body has, sampling parameters among it.
        id_prefix: of each request's `X-Request-Id`, its number follows.
    """

    kind: str
    model: str
    endpoint: str = ""
    ignore_eos: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    id_prefix: str = "bench-"

    def __post_init__(self) -> None:
        for name in ("stream", "n"):
            if name in self.extra:
                raise InvalidParameter(
                    f"`--extra-body` cannot have `{name}`", param="extra_body", hint="one stream is measured a request"
                )

    def body(self, sample: Sample) -> dict[str, Any]:
        """The body for a sample; answers are streamed and tell their usage."""
        if self.kind == "openai":
            asks: dict[str, Any] = {"prompt": sample.prompt, "max_tokens": sample.output_tokens}
        else:
            turns = [{"role": "user", "content": sample.prompt}]
            asks = {"messages": turns, "max_completion_tokens": sample.output_tokens}
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        eos = {"ignore_eos": True} if self.ignore_eos else {}
        return {"model": self.model, **asks, **stream, **eos, **self.extra}

    def request(self, target: Target, sample: Sample, number: int) -> bytes:
        """The whole request for a sample."""
        headers = {"X-Request-Id": f"{self.id_prefix}{number}"}
        return target.request(self.endpoint or ENDPOINTS[self.kind], self.body(sample), headers)
