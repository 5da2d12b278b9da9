"""Where downloaded models are kept, and how a whole file is told from a broken one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from offramp.files import replace_file

CHUNK_BYTES = 1 << 20


class Progress(Protocol):
    """Told how far a download has come; `what` is a short phrase such as `downloading NAME`."""

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Take note of `done_bytes` of `total_bytes`."""
        ...


class Artifact(NamedTuple):
    """A file known by its contents: `sha256` in hexadecimal, `size` in bytes."""

    name: str
    sha256: str
    size: int


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$OFFRAMP_CACHE`, else `$XDG_CACHE_HOME/offramp`, else `~/.cache/offramp`; not created."""
    env = os.environ if environ is None else environ
    if env.get("OFFRAMP_CACHE"):
        return Path(env["OFFRAMP_CACHE"]).expanduser()
    base = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path("~/.cache").expanduser()
    return base / "offramp"


def is_intact(path: Path, artifact: Artifact) -> bool:
    """Whether `path` is the artifact: by size, and by a marker written after its checksum was last verified.

    Without a marker (a file placed by hand) the checksum is computed, and the marker written if it matches.
    """
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    marker = _marker(path)
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == artifact.sha256:
        return True
    if sha256_of(path) != artifact.sha256:
        return False
    mark_intact(path, artifact)
    return True


def mark_intact(path: Path, artifact: Artifact) -> None:
    """Record that the checksum of `path` was verified, which saves time the next time; silent where that cannot be."""
    with suppress(OSError):
        replace_file(_marker(path), f"{artifact.sha256}\n".encode())


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
