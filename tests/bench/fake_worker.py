"""A worker program without an engine behind it: fixed answers, and the ways in which a worker can fail.

Run as a script, it looks for the loop that real workers use in the folder named by its first argument.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any


class FakeWorker:
    """Says that a token takes 10 ms in a row of one, and half as long in a row of two."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        print("an engine that talks on standard output")
        sys.stdout.flush()
        if precision == "float16":
            os._exit(7)
        return {
            "version": "fake 1",
            "route": "none",
            "isa": "none",
            "import_seconds": 0.5,
            "load_seconds": 1.5,
            "threads": threads,
        }

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        return {"tokens": new_tokens * len(prompts), "seconds": 0.01 * new_tokens}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        if len(prompt) == 13:
            raise ValueError("thirteen")
        if len(prompt) == 99:
            time.sleep(60)
        return {"tokens": len(prompt), "seconds": 0.25}

    def steps(self, prompt: list[int], rows: int, count: int) -> dict[str, Any]:
        return {"tokens": rows, "seconds": 0.004 * (1 + rows)}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from worker_loop import serve  # type: ignore[import-not-found]  # found in the folder just added

    serve(FakeWorker())
