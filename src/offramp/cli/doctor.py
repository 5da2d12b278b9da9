"""`offramp doctor`: what offramp finds on this machine, and what is wrong with it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from offramp._version import __version__
from offramp.cli.terminal import print_error, print_json, print_table
from offramp.errors import OfframpError

TAKES = ""

EXAMPLES = (
    "offramp doctor",
    "offramp doctor --json > report.json",
)

PACKAGES = ("torch", "numpy", "tokenizers", "gguf", "huggingface_hub", "jinja2", "rich")
CPU_FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "sve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None beyond those of every command."""


def run(args: argparse.Namespace) -> int:
    """Print the facts; exit code 1 if something keeps offramp from running a model."""
    facts = {
        "offramp": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        **cpu(),
        **speed(),
        "packages": {name: _version(name) for name in PACKAGES},
        **cache(),
        **criteria(),
    }
    facts["problems"] = problems(facts)
    if args.json:
        print_json(facts)
    else:
        print_table("offramp doctor", ("", ""), [(name.replace("_", " "), _text(facts[name])) for name in facts])
    for problem in facts["problems"]:
        print_error(problem["message"], problem["hint"])
    return 1 if facts["problems"] else 0


def cpu() -> dict[str, Any]:
    """Cores this process may use, and the instructions that matter to matrix products."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    found = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return {
        "cores": usable,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "cpu_features": [name for name in CPU_FEATURES if name in found],
    }


def speed() -> dict[str, float]:
    """Memory bandwidth (GB/s, reading and writing) and float32 matrix products (GFLOP/s) as NumPy reaches them."""
    import numpy as np

    source = np.ones(1 << 24, dtype=np.float32)
    target = np.empty_like(source)
    square = np.ones((1024, 1024), dtype=np.float32)
    copying = _best(lambda: np.copyto(target, source))
    product = _best(lambda: square @ square)
    return {
        "memory_gb_per_s": round(2 * source.nbytes / copying / 1e9, 1),
        "gflop_per_s": round(2 * 1024**3 / product / 1e9, 1),
    }


def cache() -> dict[str, Any]:
    """Where downloads are kept, and which models are there."""
    from offramp.models.aliases import ALIASES
    from offramp.models.cache import cache_dir, is_intact

    folder = cache_dir()
    pulled = [alias.name for alias in ALIASES.values() if is_intact(folder / alias.gguf.name, alias.gguf)]
    return {"cache": str(folder), "pulled": pulled}


def criteria() -> dict[str, Any]:
    """Exit criteria: the built-in ones, and those of installed packages with where they come from."""
    from offramp.exits.criteria import BUILT_IN, plugins

    return {"criteria": [kind.name for kind in BUILT_IN], "plugins": plugins()}


def problems(facts: dict[str, Any]) -> list[dict[str, str | None]]:
    """What keeps offramp from running a model, with the way out."""
    from offramp.exits.criteria import criterion_type

    found: list[dict[str, str | None]] = []
    if facts["packages"]["torch"] is None:
        found.append({"message": "torch is not installed", "hint": "pip install 'offramp[torch]'"})
    place = Path(facts["cache"])
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        hint = "set `OFFRAMP_CACHE` to a folder that can be written"
        found.append({"message": f"the cache folder `{facts['cache']}` cannot be written", "hint": hint})
    for name in facts["plugins"]:
        try:
            criterion_type(name)
        except OfframpError as error:
            found.append({"message": error.message, "hint": error.hint})
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _best(work: Any) -> float:
    """The shortest of three runs, in seconds, the first of four being a warm-up."""
    times = []
    for _ in range(4):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times[1:])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {at or 'missing'}" for name, at in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(v["message"] if isinstance(v, dict) else str(v) for v in value) or "none"
    return "not set" if value is None else str(value)
