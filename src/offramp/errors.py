"""Errors a caller can act on.

    OfframpError
    ├── InvalidParameter   a value that a request or an option cannot have
    ├── Unsupported        a combination that cannot be served, with the reason
    ├── ModelNotFound      a model name, folder or file that does not resolve
    ├── DownloadError      a fetch that failed, was cut short or was corrupt
    ├── WeightsError       unreadable, missing, unknown or misshapen tensors
    ├── TokenizerError     a missing or unreadable tokenizer or chat template
    ├── PackError          an exit pack that cannot be read or does not fit the model
    ├── TraceError         an exit trace that cannot be read or does not fit the request
    ├── CacheTooSmall      a KV cache that cannot hold a single request
    ├── QueueFull          more waiting requests than the engine was told to hold
    ├── EngineDown         an engine's process that is not there, or ended before a request did
    └── MissingDependency  an optional package that is not installed

Every message says what was wrong and what is allowed; `hint` says what to do.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class OfframpError(Exception):
    """An expected failure. `message` is one sentence; `hint`, if any, is the way out."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class InvalidParameter(OfframpError):
    """A parameter value that is not allowed. `param` names the parameter."""

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class Unsupported(OfframpError):
    """A combination of options that cannot be served."""


class ModelNotFound(OfframpError):
    """A MODEL argument that resolves to nothing."""


class DownloadError(OfframpError):
    """A download that failed, was interrupted, or did not match its checksum."""


class WeightsError(OfframpError):
    """A weight file that cannot be read, or tensors that do not fit the model."""


class TokenizerError(OfframpError):
    """A tokenizer or chat template that is missing or cannot be read."""


class PackError(OfframpError):
    """An exit pack that cannot be read or does not fit the model."""


class TraceError(OfframpError):
    """An exit trace that cannot be read or does not fit the request."""


class CacheTooSmall(OfframpError):
    """A KV cache that could not hold one request even with nothing else running."""


class QueueFull(OfframpError):
    """The waiting queue is at its limit; try again later."""


class EngineDown(OfframpError):
    """The engine's process is not there, or has ended before a request did; try again later."""


class MissingDependency(OfframpError):
    """An optional package is needed and not installed."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A hint that lists what is allowed, nearest match first if there is one."""
    names = sorted(allowed)
    near = get_close_matches(name, names, n=1)
    listed = ", ".join(f"`{n}`" for n in names)
    return f"did you mean `{near[0]}`? Allowed: {listed}" if near else f"allowed: {listed}"
