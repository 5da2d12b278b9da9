"""How much memory this process holds."""

from __future__ import annotations

from pathlib import Path
from resource import getpagesize


def resident_bytes() -> int | None:
    """What it holds now; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * getpagesize()
    except OSError:
        return None
