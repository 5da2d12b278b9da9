"""Exit packs that come with offramp, found by name; some share a folder with their model."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "packs"


def shipped_packs() -> tuple[str, ...]:
    """The names of the packs that come with offramp, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/exits.json")))


def find_pack(named: str | Path) -> Path:
    """The folder of a pack: of one that comes with offramp by its name, unless there is a folder of that name."""
    return FOLDER / named if str(named) in shipped_packs() and not Path(named).exists() else Path(named)
