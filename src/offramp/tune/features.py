"""What exits learn from, kept on disk: the hidden states of every token at some layers and at the top.

A folder holds, for all tokens of the data in order,

    layer-<e>.f16   hidden states after layer e, [tokens, hidden_size] float16
    top.f16         those after the last layer, before the final norm
    choice.i32      the token that the top chooses next, [tokens] int32; -1 where no token of an answer follows
    log_sum.f32     log of the sum of exp(logits) at the top, [tokens] float32; 0 where `choice` is -1

and `features.json`, which says how they were made, and which samples each file covers. Exits are trained on what they
will meet, so the executor that will serve computes them. With the sum, the top's probability of any token can be had
from `top` and that token's row of the LM head alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.errors import InvalidParameter
from offramp.files import replace_file
from offramp.tune.report import Meter
from offramp.tune.samples import Sample, check_same
from offramp.tune.trunk import Floats, LmHead, Tokens, Trunk, groups, num_blocks
from offramp.types.executor import Executor

TOP = "top"
LARGEST = float(np.finfo(np.float16).max)

Half = npt.NDArray[np.float16]

MakeExecutor = Callable[[Sequence[int], int], Executor]
"""Takes exit layers, and how many blocks of `BLOCK` tokens the paged store has."""


@dataclass(frozen=True)
class Features:
    """The features of `samples`; rows are their tokens, one sample after the other. See the module's description."""

    layers: Mapping[int, Half]
    top: Half
    choice: Tokens
    log_sum: Floats
    samples: Sequence[Sample]

    def rows(self, *, held_out: bool) -> npt.NDArray[np.int64]:
        """The rows at which a token of an answer is chosen, in the samples that are held out or in the others."""
        lengths = [len(s.token_ids) for s in self.samples]
        apart = np.repeat([s.held_out for s in self.samples], lengths)
        return np.flatnonzero((apart == held_out) & (self.choice >= 0))

    def past(self, rows: npt.NDArray[np.int64]) -> Floats:
        """The final hidden states of the tokens before `rows`, [rows, hidden_size]; 0 before a sequence's first."""
        before = self.top[rows - 1].astype(np.float32)
        before[self._first[rows]] = 0
        return before

    @cached_property
    def _first(self) -> npt.NDArray[np.bool_]:
        """Whether a row is the first of its sample."""
        first = np.zeros(len(self.choice), dtype=bool)
        first[np.cumsum([0, *(len(s.token_ids) for s in self.samples[:-1])])] = True
        return first


class FeatureStore:
    """Features on disk; computes what is missing, and goes on after an interruption.

    Args:
        folder: where the files lie; made if need be.
        identity: what the features depend on besides the data: the model, and the executor with its types.
        hidden_size: numbers in a hidden state.

    Raises:
        InvalidParameter: the folder holds features of another model or executor.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], hidden_size: int) -> None:
        self._folder, self._size, self._identity = folder, hidden_size, dict(identity)
        self._state_path = folder / "features.json"
        self._covered: dict[str, tuple[int, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._state_path.is_file():
            state = json.loads(self._state_path.read_bytes())
            check_same(state["identity"], self._identity, f"`{folder}`")
            self._covered = {name: (count, digest) for name, (count, digest) in state["covered"].items()}

    def missing(self, samples: Sequence[Sample], layers: Sequence[int]) -> int:
        """Tokens that the files do not cover yet; tokens of several files count once."""
        return sum(len(s.token_ids) for s in samples[min(self._counts(samples, layers).values()) :])

    def compute(
        self, samples: Sequence[Sample], layers: Sequence[int], make: MakeExecutor, lm_head: LmHead, meter: Meter
    ) -> None:
        """Compute what is missing of the features of `samples` at `layers` and at the top.

        Raises:
            InvalidParameter: what is there belongs to other data.
            WeightsError: the model gives numbers that are not finite.
        """
        self._check_data(samples, layers)
        while True:
            counts = self._counts(samples, layers)
            start = min(counts.values())
            if start == len(samples):
                return
            stop = min([n for n in counts.values() if n > start], default=len(samples))
            behind = [name for name, count in counts.items() if count == start]
            self._advance(samples, range(start, stop), behind, make, lm_head, meter)

    def read(self, samples: Sequence[Sample], layers: Sequence[int]) -> Features:
        """The features of `samples`, which have been computed, mapped from their files."""
        tokens = sum(len(s.token_ids) for s in samples)

        def rows(name: str) -> Half:
            return np.memmap(self._folder / f"{name}.f16", np.float16, "r", shape=(tokens, self._size))

        choice = np.fromfile(self._folder / "choice.i32", np.int32, tokens)
        log_sum = np.fromfile(self._folder / "log_sum.f32", np.float32, tokens)
        return Features({e: rows(f"layer-{e}") for e in layers}, rows(TOP), choice, log_sum, samples)

    def _counts(self, samples: Sequence[Sample], layers: Sequence[int]) -> dict[str, int]:
        """How many of `samples` each file covers; the top comes last."""
        names = [*(f"layer-{e}" for e in layers), TOP]
        return {name: min(self._covered.get(name, (0, ""))[0], len(samples)) for name in names}

    def _check_data(self, samples: Sequence[Sample], layers: Sequence[int]) -> None:
        """A file that covers no more than `samples` must cover their beginning. (A corpus only grows.)"""
        running, digests = hashlib.sha256(), [""]
        for sample in samples:
            running.update(sample.digest)
            digests.append(running.hexdigest())
        for name in self._counts(samples, layers):
            count, digest = self._covered.get(name, (0, ""))
            if count < len(digests) and digests[count] != digest:
                raise InvalidParameter(
                    f"`{self._folder}` holds features of other data", param="data", hint="choose another `--work`"
                )

    def _advance(
        self,
        samples: Sequence[Sample],
        span: range,
        names: Sequence[str],
        make: MakeExecutor,
        lm_head: LmHead,
        meter: Meter,
    ) -> None:
        """Bring the files `names`, all of which end at the beginning of `span`, to its end."""
        layers = [int(name.removeprefix("layer-")) for name in names if name != TOP]
        self._cut(names, sum(len(s.token_ids) for s in samples[: span.start]))
        digest = hashlib.sha256(b"".join(s.digest for s in samples[: span.start]))
        spans = list(groups(samples, span))
        trunk = Trunk(make(layers, max(sum(num_blocks(samples[i]) for i in group) for group in spans)))
        for group in spans:
            chosen = samples[group.start : group.stop]
            trunk.run(chosen, len(layers) + (TOP in names))
            for boundary, layer in enumerate(layers, start=1):
                self._append(f"layer-{layer}.f16", half(trunk.hidden(boundary)))
            if TOP in names:
                top = trunk.top(lm_head)
                self._append("top.f16", half(top.hidden))
                self._append("choice.i32", top.choice)
                self._append("log_sum.f32", top.log_sum)
            digest.update(b"".join(s.digest for s in chosen))
            self._covered.update({name: (group.stop, digest.hexdigest()) for name in names})
            replace_file(self._state_path, json.dumps({"identity": self._identity, "covered": self._covered}).encode())
            meter(meter.done + sum(len(s.token_ids) for s in chosen))

    def _cut(self, names: Sequence[str], tokens: int) -> None:
        """Cut off what an interruption left half done."""
        widths = {f"{name}.f16": 2 * self._size for name in names}
        if TOP in names:
            widths |= {"choice.i32": 4, "log_sum.f32": 4}
        for file, width in widths.items():
            with (self._folder / file).open("ab") as target:
                target.truncate(tokens * width)

    def _append(self, file: str, rows: npt.NDArray[Any]) -> None:
        with (self._folder / file).open("ab") as target:
            target.write(rows.tobytes())


def half(hidden: Floats) -> Half:
    """Float16, where a number that is too large becomes the largest: a few attention sinks are."""
    return np.asarray(np.clip(hidden, -LARGEST, LARGEST), dtype=np.float16)
