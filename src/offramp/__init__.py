"""offramp: inference for early-exit language models.

Public names load what they need when first used, so that `import offramp` imports neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from offramp._version import __version__

if TYPE_CHECKING:
    from offramp.errors import OfframpError
    from offramp.llm import LLM
    from offramp.types.exits import ExitParams
    from offramp.types.sampling import SamplingParams

__all__ = ["LLM", "ExitParams", "OfframpError", "SamplingParams", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    homes = {
        "ExitParams": "offramp.types.exits",
        "LLM": "offramp.llm",
        "OfframpError": "offramp.errors",
        "SamplingParams": "offramp.types.sampling",
    }
    if name not in homes:
        raise AttributeError(f"module `offramp` has no attribute `{name}`")
    value: object = getattr(import_module(homes[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
