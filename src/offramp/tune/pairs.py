"""Sources and targets as tokens: all of a data set in a few arrays, and in batches.

A file `pairs.npz` holds them with their tokenizer, so that they can be trained on where neither the text nor
`tokenizers` is. Targets that several sources share are stored once.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.errors import InvalidParameter
from offramp.tune.sizes import CPU
from offramp.tune.t5_shape import END, PAD

HINT = 'a line is {"source": "...", "target": "..."}'

HELD_OUT = 50
"""One target of this many is held out of training, with all of its sources."""

MULTIPLE = 8
"""Lengths are padded to a multiple of this."""

Ints = npt.NDArray[Any]


class Texts(NamedTuple):
    """A source and its target."""

    source: str
    target: str


class Ragged(NamedTuple):
    """Sequences one behind another: `ids`, and where each ends."""

    ids: Ints
    ends: Ints

    @staticmethod
    def of(sequences: Sequence[Sequence[int]]) -> Ragged:
        """Sequences of token ids below 2^16."""
        flat = np.fromiter((i for s in sequences for i in s), dtype=np.uint16)
        return Ragged(flat, np.cumsum([len(s) for s in sequences], dtype=np.int64))

    @property
    def lengths(self) -> Ints:
        """Of each sequence."""
        return np.diff(self.ends, prepend=0)

    def padded(self, numbers: Ints, width: int) -> npt.NDArray[np.int64]:
        """The sequences `numbers`, [sequences, width]."""
        lengths = self.lengths_of(numbers)
        places = np.arange(width)
        there = places < lengths[:, None]
        at = (self.ends[numbers] - lengths)[:, None] + places
        return np.where(there, self.ids[np.where(there, at, 0)], PAD).astype(np.int64)

    def lengths_of(self, numbers: Ints) -> Ints:
        """Of the sequences `numbers`."""
        return self.ends[numbers] - np.where(numbers > 0, self.ends[numbers - 1], 0)


@dataclass(frozen=True)
class Pairs:
    """A data set: source i belongs to target `target_of[i]`. All end with the token that ends them.

    `held_out` [targets] says which targets training does not see, `tokenizer` is the `tokenizer.json`, `sha256` that of
    the file they were made of.
    """

    sources: Ragged
    targets: Ragged
    target_of: Ints
    held_out: npt.NDArray[np.bool_]
    tokenizer: bytes
    sha256: str

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the tokens."""
        digest = hashlib.sha256()
        for array in (*self.sources, *self.targets, self.target_of, self.held_out):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def numbers(self, held_out: bool) -> Ints:
        """The pairs that are held out, or those that are not."""
        return np.flatnonzero(self.held_out[self.target_of] == held_out)

    def save(self, path: Path) -> None:
        """Write `pairs.npz`."""
        with path.open("wb") as file:
            np.savez(
                file,
                source_ids=self.sources.ids,
                source_ends=self.sources.ends,
                target_ids=self.targets.ids,
                target_ends=self.targets.ends,
                target_of=self.target_of,
                held_out=self.held_out,
                tokenizer=np.frombuffer(self.tokenizer, np.uint8),
                sha256=np.frombuffer(self.sha256.encode(), np.uint8),
            )


def load_pairs(path: Path) -> Pairs:
    """Read `pairs.npz`.

    Raises:
        InvalidParameter: the file is another one.
    """
    try:
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
        return Pairs(
            Ragged(found["source_ids"], found["source_ends"]),
            Ragged(found["target_ids"], found["target_ends"]),
            found["target_of"],
            found["held_out"],
            found["tokenizer"].tobytes(),
            found["sha256"].tobytes().decode(),
        )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidParameter(f"`{path}` holds no prepared pairs: {error}", param="data") from error


def read_texts(path: Path) -> list[Texts]:
    """The records of a `.jsonl` file.

    Raises:
        InvalidParameter: the file cannot be read, or a line of it is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = f"the recipe `calm` needs a file; {HINT}"
        raise InvalidParameter(f"the data `{path}` cannot be read: {error}", param="data", hint=hint) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = json.loads(line)
                texts = Texts(value["source"], value["target"])
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidParameter(f"line {number} of `{path}` is no record", param="data", hint=HINT) from error
            if not all(isinstance(text, str) and text for text in texts):
                raise InvalidParameter(f"line {number} of `{path}` is no record", param="data", hint=HINT)
            found.append(texts)
    return found


def make_pairs(
    texts: Sequence[Texts],
    encode: Callable[[str], list[int]],
    tokenizer: bytes,
    sha256: str,
    longest: int,
    update: Callable[[int], None] = lambda done: None,
) -> Pairs:
    """Tokens of `texts`; pairs of which one side has more than `longest` tokens are left out.

    Raises:
        InvalidParameter: there are too few.
    """
    sources: list[list[int]] = []
    targets: list[list[int]] = []
    target_of, held_out, places = list[int](), list[bool](), dict[str, int]()
    for number, (source, target) in enumerate(texts):
        place = places.get(target)
        if place is None:
            ids = [*encode(target), END]
            place = places[target] = len(targets) if len(ids) <= longest else -1
            if place >= 0:
                targets.append(ids)
                held_out.append(zlib.crc32(target.encode()) % HELD_OUT == 0)
        ids = [*encode(source), END]
        if place >= 0 and len(ids) <= longest:
            sources.append(ids)
            target_of.append(place)
        update(number + 1)
    if not 0 < sum(held_out) < len(held_out):
        raise InvalidParameter(
            f"{len(held_out)} targets of up to {longest} tokens are too few to train on and to hold some out",
            param="data",
            hint="give more data",
        )
    return Pairs(
        Ragged.of(sources),
        Ragged.of(targets),
        np.array(target_of, dtype=np.int32),
        np.array(held_out),
        tokenizer,
        sha256,
    )


class PairBatch(NamedTuple):
    """Pairs side by side.

    `source` [pairs, tokens], of `source_lengths` [pairs]; `given` [pairs, tokens]: what the decoder reads, which begins
    with the token that begins every target; `rows` [target tokens]: where its flat places choose a token; `next`
    [target tokens]: those tokens.
    """

    source: Tensor
    source_lengths: Tensor
    given: Tensor
    rows: Tensor
    next: Tensor


def deal_pairs(pairs: Pairs, numbers: Ints, tokens: int, epochs: int, seed: int) -> list[Ints]:
    """Steps of about `tokens` target tokens; a step is pairs of about the same length, and steps are in random order.
    Each epoch is dealt anew."""
    dealt: list[Ints] = []
    lengths = pairs.targets.lengths_of(pairs.target_of[numbers]) * 4096 + pairs.sources.lengths_of(numbers)
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch])
        order = numbers[np.lexsort((random.random(len(numbers)), lengths))]
        ends = np.cumsum(pairs.targets.lengths_of(pairs.target_of[order]))
        cuts = np.searchsorted(ends, np.arange(tokens, int(ends[-1]), tokens)) + 1
        steps = [part for part in np.split(order, cuts) if len(part)]
        dealt += [steps[i] for i in random.permutation(len(steps))]
    return dealt


def pair_batch(pairs: Pairs, numbers: Ints, device: torch.device = CPU) -> PairBatch:
    """The pairs `numbers` on a device."""
    targets = pairs.target_of[numbers]
    lengths, target_lengths = pairs.sources.lengths_of(numbers), pairs.targets.lengths_of(targets)
    source = pairs.sources.padded(numbers, _width(lengths))
    following = pairs.targets.padded(targets, _width(target_lengths))
    given = np.concatenate([np.full((len(numbers), 1), PAD), following[:, :-1]], axis=1)
    rows = np.flatnonzero(np.arange(following.shape[1]) < target_lengths[:, None])
    arrays = (source, lengths, given, rows, following.reshape(-1)[rows])
    return PairBatch(*(_moved(np.ascontiguousarray(array), device) for array in arrays))


def _width(lengths: Ints) -> int:
    return int(-(-lengths.max() // MULTIPLE) * MULTIPLE)


def _moved(array: Ints, device: torch.device) -> Tensor:
    """On the device, without waiting for what it is doing."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
