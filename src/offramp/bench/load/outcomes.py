"""What came of each request: times, text, tokens, and what the server says about exits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp.bench.load.client import Recorded
from offramp.bench.load.replies import Unreadable, read_reply

SAYS = ("content", "text", "reasoning_content", "reasoning", "tool_calls")
"""What a chunk may bring that is output."""


@dataclass(slots=True)
class Outcome:
    """One request. Times are in seconds; `sent` is by `perf_counter`, the others count from there.

    `ttft` is when the first chunk with output came, `itl` the time from each to the next: a server that puts several
    tokens into a chunk has fewer. `latency` ends with the last chunk that has a choice. `error` is None for a success.
    Tokens are None where the server does not tell.
    """

    sent: float
    ttft: float = 0.0
    itl: list[float] = field(default_factory=list)
    latency: float = 0.0
    text: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    exit: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def tpot(self) -> float:
        """Seconds for each token after the first; 0 where there is none."""
        later = (self.output_tokens or 0) - 1
        return (self.latency - self.ttft) / later if later > 0 else 0.0


def read_outcome(recorded: Recorded) -> Outcome:
    """What came of a request for a stream of completions or of a chat."""
    outcome = Outcome(recorded.sent)
    try:
        reply = read_reply(recorded)
        outcome.error = reply.error()
        if outcome.error is None:
            _read_events(reply.events(), outcome)
    except Unreadable as error:
        outcome.error = str(error)
    return outcome


def _read_events(events: Any, outcome: Outcome) -> None:
    """Raises Unreadable: the events are no stream of completions that came to its end."""
    last: float | None = None
    ended = False
    for at, data in events:
        if data == "[DONE]":
            ended = True
            continue
        chunk = _chunk(data)
        if "error" in chunk:
            error = chunk["error"]
            raise Unreadable(str(error.get("message", error) if isinstance(error, dict) else error))
        if usage := chunk.get("usage"):
            outcome.prompt_tokens = usage.get("prompt_tokens", outcome.prompt_tokens)
            outcome.output_tokens = usage.get("completion_tokens", outcome.output_tokens)
        if chunk.get("exit"):
            outcome.exit = chunk["exit"]
        if not chunk.get("choices"):
            continue
        choice = chunk["choices"][0]
        ended = ended or choice.get("finish_reason") is not None
        outcome.latency = at - outcome.sent
        said = {**choice, **(choice.get("delta") or {})}
        if not any(said.get(name) for name in SAYS):
            continue
        outcome.text += str(said.get("text") or said.get("content") or "")
        if last is None:
            outcome.ttft = at - outcome.sent
        else:
            outcome.itl.append(at - last)
        last = at
    if not ended:
        raise Unreadable("the stream broke off")
    if last is None:
        # Tokens without text, such as the one that ends a sequence: the chunk that ends the stream stands for them.
        outcome.ttft = outcome.latency


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise Unreadable("an event is no JSON object")
    return chunk
