"""What all workers share: JSON lines in, JSON lines out. Imports nothing but the standard library.

A request is {"do": NAME, ...}; its other keys are the arguments of the worker's method NAME. The answer is what the
method returned, with the peak of the process's memory, or {"error": TEXT}. Whatever an engine prints on standard output
goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from importlib import import_module
from time import perf_counter
from typing import Any

VERBS = ("load", "decode", "generate", "prefill", "steps", "ceilings")


class Missing(Exception):
    """The engine is not installed here, or cannot do what was asked; the text says why."""


def engine_module(name: str) -> tuple[Any, float]:
    """An engine's package and the seconds that importing it took.

    Raises:
        Missing: it is not installed.
    """
    start = perf_counter()
    try:
        module = import_module(name)
    except ImportError as error:
        raise Missing(f"`{name}` cannot be imported by {sys.executable}: {error}") from error
    return module, perf_counter() - start


def peak_bytes() -> int:
    """The most memory this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(worker: Any) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("do")
        try:
            method = getattr(worker, verb, None) if verb in VERBS else None
            if method is None:
                raise Missing(f"this worker cannot `{verb}`")
            answer = {**method(**request), "peak_bytes": peak_bytes()}
        except Missing as error:
            answer = {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
