"""Files that are never seen half written."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex


@contextmanager
def draft_of(path: Path) -> Generator[Path, None, None]:
    """A path beside `path` to write to: what is there at the end takes its place, and is gone where that fails. Whoever
    reads at the same time sees the old file or the new one whole.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{token_hex(8)}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file as a whole; see `draft_of`."""
    with draft_of(path) as draft:
        draft.write_bytes(content)
