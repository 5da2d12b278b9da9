"""Training data: token sequences, each a prompt and what was answered, in a file that grows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import InvalidParameter
from offramp.files import replace_file

HELD_OUT = 20
"""One sample of this many is held out of training."""

JUDGED = 32768
"""Held-out answer tokens that exits are judged on in the end, at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens of one sequence, the first `prompt_tokens` (at least 1) of which are the prompt."""

    token_ids: tuple[int, ...]
    prompt_tokens: int

    @property
    def scored(self) -> range:
        """The positions whose hidden state chooses a token of the answer: exits are learnt there."""
        return range(self.prompt_tokens - 1, len(self.token_ids) - 1)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the sample."""
        return hashlib.sha256(np.array([self.prompt_tokens, *self.token_ids], dtype="<i8").tobytes()).digest()

    @property
    def held_out(self) -> bool:
        """Whether the sample is for judging, not for training. Depends on nothing else, so more data keep the split."""
        return int.from_bytes(self.digest[:8], "little") % HELD_OUT == 0


class Corpus:
    """Samples in `data.jsonl`, one object {"token_ids": [...], "prompt_tokens": n, "number": i} a line.

    Numbers ascend: they are those of the seeds or records that the samples were made of. A line that an interruption
    left half written is cut off. `data.json` beside the file says with which settings it was made.

    Args:
        folder: where both files lie; made if need be.
        settings: what the data depend on, as JSON has it.

    Attributes:
        samples: all samples.
        next: the number behind the last sample's.
        tokens: answer tokens of all samples.

    Raises:
        InvalidParameter: the folder holds data that were made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path, state = folder / "data.jsonl", folder / "data.json"
        self.samples: list[Sample] = []
        self.next, self.tokens = 0, 0
        folder.mkdir(parents=True, exist_ok=True)
        if state.is_file():
            check_same(json.loads(state.read_bytes()), settings, f"`{self.path}`")
            self._read()
        else:
            self.path.write_bytes(b"")
            replace_file(state, json.dumps(settings).encode())

    def append(self, samples: Iterable[Sample], number: int) -> None:
        """Add the samples of a seed, a record or a batch, in one piece."""
        samples = list(samples)
        values = [{"token_ids": s.token_ids, "prompt_tokens": s.prompt_tokens, "number": number} for s in samples]
        with self.path.open("ab", buffering=0) as file:
            file.write("".join(json.dumps(one) + "\n" for one in values).encode())
        for sample in samples:
            self._take(sample, number)

    def _take(self, sample: Sample, number: int) -> None:
        self.samples.append(sample)
        self.next, self.tokens = number + 1, self.tokens + len(sample.scored)

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                values = json.loads(line)
                self._take(read_sample(values), values["number"])
                whole += len(line)
            file.truncate(whole)


def read_sample(values: Mapping[str, Any]) -> Sample:
    """A sample from its line of a file."""
    return Sample(tuple(values["token_ids"]), values["prompt_tokens"])


def check_same(there: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Check that work on disk was done with the settings that are wanted now.

    Raises:
        InvalidParameter: it was not; names the first setting that differs.
    """
    for name in {**there, **wanted}:
        if there.get(name) != wanted.get(name):
            raise InvalidParameter(
                f"{what} was made with `{name}` {there.get(name)!r}, and now it is {wanted.get(name)!r}",
                param=name,
                hint="give the same settings again, or another folder",
            )


def count_scored(samples: Sequence[Sample]) -> int:
    """Answer tokens of the samples."""
    return sum(len(s.scored) for s in samples)


def first_samples(samples: Sequence[Sample], tokens: int) -> list[Sample]:
    """The shortest beginning of `samples` that has at least `tokens` answer tokens; all, if they have fewer."""
    total = 0
    for number, sample in enumerate(samples):
        if total >= tokens:
            return list(samples[:number])
        total += len(sample.scored)
    return list(samples)


def to_judge(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that exits are judged on in the end."""
    return first_samples([s for s in samples if s.held_out], JUDGED)


def data_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 over the samples, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.digest)
    return digest.hexdigest()
