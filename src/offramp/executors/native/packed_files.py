"""Which files of packed matrices are kept, under which names.

They lie in `packed/` in the cache folder. A file is named after the model's own files, that of an exit pack which
changes the trunk, and the weight type, so a model that changed replaces what was packed of it before. Reading a file
dates it anew. When one has been written, those that were not used for longest are deleted until all of them together
have at most `OFFRAMP_PACKED_GB` (10) times 10^9 bytes; the new one stays whatever its size. Whoever is reading a
deleted file reads on: it is gone when it is closed.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from offramp.errors import InvalidParameter
from offramp.models.cache import cache_dir

LIMIT = "OFFRAMP_PACKED_GB"
DEFAULT_GB = 10.0
DRAFT_SECONDS = 3600
"""A file that was not finished for so long never will be: whoever was writing it was killed."""


def packed_folder() -> Path:
    """Where the files lie; not created."""
    return cache_dir() / "packed"


def packed_path(files: Sequence[Path], dtype: str) -> Path:
    """The file for a model that lies in `files`, packed as `dtype`."""
    home = files[0].absolute().parent
    if home.parent.name == "snapshots":  # of Hugging Face's cache: other revisions of a model are the same model
        home = home.parent.parent
    label = files[0].stem if files[0].suffix == ".gguf" else home.name
    # A file that lies elsewhere is a change of the model: each has packed weights of its own, and so has the model.
    names = (file.name if file.parent == files[0].parent else str(file.absolute()) for file in files)
    key = hashlib.sha256("\n".join([str(home), *names]).encode()).hexdigest()[:8]
    return packed_folder() / f"{re.sub(r'[^A-Za-z0-9._-]', '_', label)[:80]}-{key}-{dtype}.bin"


def limit_gb() -> float:
    """What all files together may have, in 10^9 bytes.

    Raises:
        InvalidParameter: `OFFRAMP_PACKED_GB` is not a number of at least 0.
    """
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text or DEFAULT_GB)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise InvalidParameter(
            f"`{LIMIT}` must be a number of at least 0, not `{text}`",
            param=LIMIT,
            hint=f"leave it out for {DEFAULT_GB:g}, the gigabytes of packed weights that are kept",
        )
    return limit


def mark_used(path: Path) -> None:
    """Date a file anew."""
    with suppress(OSError):  # a folder that cannot be written is not pruned either
        os.utime(path)


def prune(keep: Path, limit: float) -> None:
    """Delete what was not used for longest beyond `limit` gigabytes, and drafts that nobody finishes; never `keep`."""
    sizes = packed_sizes()
    excess = sum(sizes.values()) - limit * 1e9
    for path, size in sizes.items():
        if excess > 0 and path != keep:
            with suppress(OSError):  # gone already, or on a system where open files stay
                path.unlink()
            excess -= size
    for draft in packed_folder().glob("*.bin.*"):
        with suppress(OSError):
            if draft.stat().st_mtime < time.time() - DRAFT_SECONDS:
                draft.unlink()


def packed_sizes() -> dict[Path, int]:
    """Bytes of each file, the one that was not used for longest first."""
    found = []
    for path in packed_folder().glob("*.bin"):
        with suppress(OSError):  # another process may delete it meanwhile
            facts = path.stat()
            found.append((facts.st_mtime_ns, path, facts.st_size))
    return {path: size for _, path, size in sorted(found)}
