"""Models that come with offramp, each in one folder with its exit pack (`offramp.exits.shipped`), found by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "packs"


def shipped_models() -> tuple[str, ...]:
    """The names of the models that come with offramp, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))
