"""What a benchmark ran on: machine, code and command, for the record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from offramp._version import __version__

CPU_FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "sve")


def usable_cpus() -> tuple[int, ...]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo"), meminfo: Path = Path("/proc/meminfo")) -> dict[str, Any]:
    """Processor, its instruction sets, cores, memory and system."""
    cpu, flags = platform.processor() or platform.machine(), set[str]()
    if cpuinfo.is_file():
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
        values = {name.strip(): value.strip() for name, _, value in lines}
        cpu = f"{values.get('model name', cpu)} (family {values.get('cpu family')}, model {values.get('model')})"
        flags = set((values.get("flags") or values.get("Features") or "").split())
    memory = None
    if meminfo.is_file():
        memory = int(meminfo.read_text(encoding="utf-8").split()[1]) * 1024
    return {
        "cpu": cpu,
        "cpu_features": [name for name in CPU_FEATURES if name in flags],
        "cores": len(usable_cpus()),
        "memory_bytes": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def describe_code() -> dict[str, Any]:
    """Version, commit (None outside a checkout; `+` if files were changed since) and the command line."""
    return {"offramp": __version__, "commit": _commit(), "command": "offramp " + " ".join(sys.argv[1:])}


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
