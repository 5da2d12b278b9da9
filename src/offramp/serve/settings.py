"""What the HTTP side can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from offramp.serve.protocol import Dial
from offramp.types.exits import ExitParams

LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How requests are taken.

    Args:
        model_name: the model's name in requests, and in all answers.
        other_names: further names that requests may have for it.
        exit: the dial of requests that say nothing about exits.
        max_risk: the largest risk that a request may ask for; None for any.
        allow_criteria: whether requests may give a criterion of their own, whose risk nobody knows.
        api_key: what clients must show; None lets everybody in. Never shown.
        root_path: where a proxy mounts the server.
        cors_origins: web pages from these origins may send requests.
        max_body: bytes that a request may have.
        keep_alive: seconds of silence in a stream after which a comment is sent.
        send_timeout: seconds that a client may leave its stream unread, when no more fits, before it counts as gone.
        drain_timeout: seconds that running requests get when the server is told to end.
        shadow: the share of requests that are rescored at full depth.
    """

    model_name: str
    exit: Dial = "off"
    max_risk: float | None = None
    allow_criteria: bool = True
    api_key: str | None = field(default=None, repr=False)
    root_path: str = ""
    cors_origins: tuple[str, ...] = ()
    max_body: int = 4 * 2**20
    keep_alive: float = 15.0
    send_timeout: float = 60.0
    drain_timeout: float = 30.0
    shadow: float = 0.0
    other_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model, that of answers first."""
        return (self.model_name, *self.other_names)

    def shown(self) -> dict[str, Any]:
        """Plain values, without the key."""
        return {
            "model_name": self.model_name,
            "other_names": list(self.other_names),
            "exit": shown_dial(self.exit),
            "max_risk": self.max_risk,
            "allow_criteria": self.allow_criteria,
            "api_key": self.api_key is not None,
            "root_path": self.root_path,
            "cors_origins": list(self.cors_origins),
            "max_body": self.max_body,
            "drain_timeout": self.drain_timeout,
            "send_timeout": self.send_timeout,
            "shadow": self.shadow,
        }


def dial_word(dial: Dial) -> str:
    """A position of the dial as one word: `lossless`, `0.02`, `fill:max_prob:0.9`, `verify:margin:10@0.8,20@0.9`."""
    if not isinstance(dial, ExitParams):
        return str(dial)
    at = dial.threshold
    thresholds = ",".join(f"{layer}@{at[layer]:g}" for layer in at) if isinstance(at, Mapping) else f"{at:g}"
    least = f":from{dial.min_layer}" if dial.min_layer else ""
    return f"{dial.kv}:{dial.criterion}:{thresholds}{least}"


def shown_dial(dial: Dial) -> Any:
    """A position of the dial as requests write it."""
    if isinstance(dial, ExitParams):
        at = dial.threshold
        threshold = {str(layer): at[layer] for layer in at} if isinstance(at, Mapping) else at
        return {"criterion": dial.criterion, "threshold": threshold, "min_layer": dial.min_layer, "kv": dial.kv}
    return dial if dial in ("off", "lossless") else {"risk": dial}
