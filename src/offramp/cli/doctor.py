"""`offramp doctor`: what offramp finds on this machine, and what is wrong with it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from offramp._version import __version__
from offramp.cli.terminal import print_error, print_json, print_table
from offramp.errors import OfframpError

TAKES = ""

EXAMPLES = (
    "offramp doctor",
    "offramp doctor --json > report.json",
)

PACKAGES = ("torch", "numpy", "tokenizers", "gguf", "huggingface_hub", "jinja2", "rich", "llguidance")
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
        **core(),
        "packages": {name: _version(name) for name in PACKAGES},
        **cache(),
        **packed(),
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
        "offramp_isa": os.environ.get("OFFRAMP_ISA"),
        "cpu_features": [name for name in CPU_FEATURES if name in found],
    }


def core() -> dict[str, Any]:
    """The C++ core: instruction sets and threads, and the ceilings that its kernels are up against.

    Bandwidth is of reading memory that no cache holds (GB/s); the others of multiplying and adding in registers, in
    float32 (GFLOP/s) and in int8 as the kernels for integer weights do it (GOP/s).
    """
    if find_spec("offramp._native") is None:
        return {"isa": None}
    from offramp import _native
    from offramp.executors.native import default_threads, instruction_set

    threads = default_threads()
    return {
        "isa": instruction_set(),
        "isas": _native.supported_isas(),
        "threads": threads,
        "memory_gb_per_s": round(_native.measure_bandwidth(threads), 1),
        "float32_gflop_per_s": round(_native.measure_fma(threads), 1),
        "int8_gop_per_s": round(_native.measure_int8(threads), 1),
    }


def cache() -> dict[str, Any]:
    """Where downloads are kept, which models are there, and which come with offramp."""
    from offramp.models.aliases import ALIASES
    from offramp.models.cache import cache_dir, is_intact
    from offramp.models.shipped import shipped_models

    folder = cache_dir()
    pulled = [alias.name for alias in ALIASES.values() if is_intact(folder / alias.file.name, alias.file)]
    return {"cache": str(folder), "pulled": pulled, "shipped": list(shipped_models())}


def packed() -> dict[str, Any]:
    """What is kept of models packed for the native executor, in 10^6 bytes, and how much may be, in 10^9."""
    if find_spec("offramp._native") is None:
        return {}
    from offramp.executors.native.packed_files import limit_gb, packed_sizes

    sizes = {path.name: size // 10**6 for path, size in packed_sizes().items()}
    return {"packed_mb": sizes, "packed_limit_gb": limit_gb()}


def criteria() -> dict[str, Any]:
    """Exit criteria: the built-in ones, and those of installed packages with where they come from."""
    from offramp.exits.criteria import BUILT_IN, plugins

    return {"criteria": [kind.name for kind in BUILT_IN], "plugins": plugins()}


def problems(facts: dict[str, Any]) -> list[dict[str, str | None]]:
    """What keeps offramp from running a model, with the way out."""
    from offramp.exits.criteria import criterion_type

    found: list[dict[str, str | None]] = []
    if facts["isa"] is None:
        hint = "install offramp from a wheel, or from source with a C++ compiler at hand"
        found.append({"message": "the native executor is missing: offramp's C++ core was not built", "hint": hint})
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


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {'missing' if at is None else at}" for name, at in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(v["message"] if isinstance(v, dict) else str(v) for v in value) or "none"
    return "not set" if value is None else str(value)
