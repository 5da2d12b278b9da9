"""The server's log: one line for each request, and one every few seconds while it is busy. Text or JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TextIO

from starlette.types import Scope

from offramp.errors import EngineDown
from offramp.serve.observe import Metrics
from offramp.serve.protocol import EngineClient, EngineStats
from offramp.serve.settings import LogFormat

BUSY_SECONDS = 5.0


class Log:
    """Writes events, each on a line of its own.

    Args:
        form: `text`, or `json`: an object with `time`, `event` and the event's fields.
        stream: where to; by default standard error.
    """

    def __init__(self, form: LogFormat = "text", stream: TextIO | None = None) -> None:
        self._form, self._stream = form, stream

    def write(self, event: str, **fields: Any) -> None:
        """An event. Fields that are None are left out."""
        now = datetime.now(timezone.utc)
        fields = {name: value for name, value in fields.items() if value is not None}
        if self._form == "json":
            line = json.dumps({"time": now.isoformat(timespec="milliseconds"), "event": event, **fields})
        else:
            words = [f"{name}={_word(value)}" for name, value in fields.items()]
            line = " ".join([now.strftime("%H:%M:%S"), event, *words])
        with suppress(OSError, ValueError):  # a log that cannot be written stops no request
            print(line, file=self._stream or sys.stderr, flush=True)


def _word(value: Any) -> str:
    """A value in a line of text: in quotes where it could be taken for more than one word or line."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text)


@dataclass
class RequestLog:
    """What the line of one request says beyond its path and status; filled in as the request is served."""

    id: str
    log: Log
    fields: dict[str, Any] = field(default_factory=dict)
    trouble: str | None = None

    @staticmethod
    def of(scope: Scope) -> RequestLog:
        """That of a request."""
        found = scope["offramp.log"]
        assert isinstance(found, RequestLog)
        return found

    def failed(self, error: BaseException) -> None:
        """A bug: its traceback goes to the log, and nowhere else."""
        self.trouble = "".join(traceback.format_exception(type(error), error, error.__traceback__))


async def log_while_busy(client: EngineClient, metrics: Metrics, log: Log, *, seconds: float = BUSY_SECONDS) -> None:
    """Write a line every few seconds while something runs or waits; runs until it is cancelled."""
    before: EngineStats | None = None
    while True:
        await asyncio.sleep(seconds)
        try:
            now = await asyncio.wait_for(client.stats(), seconds)
        except (EngineDown, asyncio.TimeoutError):
            before = None
            continue
        metrics.observe(now)
        if before is not None and now.restarts == before.restarts and (now.running or now.waiting):
            log.write("busy", **busy_fields(before, now, seconds))
        before = now


async def log_end(client: EngineClient, log: Log) -> None:
    """Write a line when the engine is down for good."""
    reason = await client.wait_lost()
    log.write("engine_down", level="error", reason=reason.message)


def busy_fields(before: EngineStats, now: EngineStats, seconds: float) -> dict[str, Any]:
    """What happened between two looks."""

    def change(of: Callable[[EngineStats], int]) -> int:
        return of(now) - of(before)

    exits = {layer: count - before.exit_tokens.get(layer, 0) for layer, count in now.exit_tokens.items()}
    tokens = sum(exits.values())
    layers = change(lambda s: s.layers_run + s.layers_filled + s.layers_skipped)
    return {
        "running": now.running,
        "waiting": now.waiting,
        "prompt_tokens_per_s": change(lambda s: s.prompt_tokens) / seconds,
        "output_tokens_per_s": change(lambda s: s.output_tokens) / seconds,
        "kv_used": now.kv_used_blocks / max(now.kv_total_blocks, 1),
        "mean_depth": sum(layer * count for layer, count in exits.items()) / tokens if tokens else None,
        "layers_skipped": change(lambda s: s.layers_skipped) / layers if layers else None,
    }
