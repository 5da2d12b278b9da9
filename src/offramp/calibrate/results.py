"""What has been measured so far, on disk: long work goes on where it stopped.

A JSON-lines file in the folder `calibrate` of the cache, named after a hash of everything a result depends on besides
its setting and its prompt. Its first line says what that was; each further line is

    {"setting": "<hash>", "prompt": "<hash>", ...}

Results are found by what they are about, so another number of prompts, other risks or a longer path use what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.errors import OfframpError
from offramp.models import cache_dir

Found = dict[str, Any]


def digest(value: Any) -> str:
    """16 hexadecimal digits that tell JSON values apart."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Results:
    """A context manager: results of one model, pack and way of generating. A line that is torn is measured again.

    `about` is everything a result depends on, besides its setting and its prompt, as JSON values.

    Raises:
        OfframpError: the file cannot be read or written.
    """

    def __init__(self, about: Mapping[str, Any], folder: Path | None = None) -> None:
        folder = cache_dir() / "calibrate" if folder is None else folder
        self.path = folder / f"{digest(dict(about))}.jsonl"
        self._found: dict[tuple[str, str], Found] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            whole = self._read()
            if self.path.is_file() and self.path.stat().st_size > whole:
                os.truncate(self.path, whole)
            self._file = self.path.open("ab")
        except OSError as error:
            raise OfframpError(
                f"results cannot be kept in `{self.path}`: {error.strerror}",
                hint="set `OFFRAMP_CACHE` to a folder that can be written",
            ) from error
        if not whole:
            self._write(dict(about))

    def find(self, setting: str, prompt: str) -> Found | None:
        """The result of a setting on a prompt, both by their digests."""
        return self._found.get((setting, prompt))

    def add(self, setting: str, prompt: str, result: Found) -> None:
        """Keep a result. It is on disk when this returns."""
        self._found[setting, prompt] = result
        self._write({"setting": setting, "prompt": prompt, **result})

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> int:
        """Read what is there; returns the bytes of its whole lines."""
        if not self.path.is_file():
            return 0
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                values = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                if whole:
                    self._found[values.pop("setting"), values.pop("prompt")] = values
            except (ValueError, KeyError, AttributeError, TypeError):
                break
            whole += len(line)
        return whole

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
