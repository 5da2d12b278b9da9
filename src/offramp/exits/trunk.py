"""The trunk adapter of an exit pack: a low-rank change of the model's linear layers (LoRA, Hu et al. 2021).

`trunk.safetensors` is described in `offramp.exits.pack`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offramp.errors import PackError
from offramp.weights.eight_bits import EightBitsFile
from offramp.weights.source import Array

FILE = "trunk.safetensors"
LINEAR = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
"""The linear layers of a decoder layer i; their matrices are `model.layers.<i>.<linear>_proj.weight`."""

_NAME = re.compile(rf"model\.layers\.\d+\.({'|'.join(map(re.escape, LINEAR))})_proj\.weight\.lora_[ab]")


@dataclass(frozen=True)
class TrunkAdapter:
    """A change B A of the matrices `changed`; A has `rank` rows. Factors are loaded when asked for."""

    rank: int
    changed: frozenset[str]
    file: EightBitsFile

    @property
    def path(self) -> Path:
        """The file it lies in."""
        return self.file.path

    @property
    def identity(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def factors(self, name: str) -> tuple[Array, Array]:
        """A [rank, columns] and B [rows, rank] of a changed matrix [rows, columns]."""
        return self.file.load(f"{name}.lora_a"), self.file.load(f"{name}.lora_b")

    def tensors(self) -> dict[str, Array]:
        """All factors by their names in the file."""
        return {name: self.file.load(name) for name in self.file.shapes}

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the matrices that are changed have these `shapes`.

        Raises:
            PackError: one of them does not.
        """
        for name in sorted(self.changed):
            shape = self.file.shapes[f"{name}.lora_b"][0], self.file.shapes[f"{name}.lora_a"][1]
            if shapes.get(name) != shape:
                found = f"it has shape {list(shapes[name])}" if name in shapes else "there is none"
                raise PackError(
                    f"the exit pack changes `{name}` of shape {list(shape)}, and in this model {found}",
                    hint="use the model that the pack was made for",
                )


def read_trunk(folder: Path, rank: int | None) -> TrunkAdapter | None:
    """The trunk adapter of the pack in `folder`; `rank` is what `exits.json` says, None where it names none.

    Raises:
        PackError: the file is missing or should not be there; or a tensor is missing, unknown, misshapen or not finite.
        WeightsError: the file is corrupt.
    """
    path = folder / FILE
    if rank is None:
        if path.is_file():
            raise PackError(f"the exit pack has a file `{FILE}`, and `exits.json` has no key `trunk`")
        return None
    if not path.is_file():
        raise PackError(f"`exits.json` names a `trunk`, and the exit pack has no file `{FILE}`")
    file = EightBitsFile(path)
    changed = frozenset(name.rpartition(".")[0] for name in file.shapes)
    if not changed:
        raise PackError(f"`{FILE}` changes nothing", hint="leave out the key `trunk` and the file")
    for name in file.shapes:
        if not _NAME.fullmatch(name):
            raise PackError(f"`{FILE}` has an unknown tensor `{name}`")
    for name in sorted(changed):
        _check_factor(file, f"{name}.lora_a", 0, rank)
        _check_factor(file, f"{name}.lora_b", 1, rank)
    return TrunkAdapter(rank, changed, file)


def _check_factor(file: EightBitsFile, name: str, axis: int, rank: int) -> None:
    if name not in file.shapes:
        raise PackError(f"`{FILE}` lacks the tensor `{name}`")
    shape = file.shapes[name]
    if len(shape) != 2 or shape[axis] != rank:
        wanted = f"[{rank}, columns]" if axis == 0 else f"[rows, {rank}]"
        raise PackError(f"tensor `{name}` must have shape {wanted}, not {list(shape)}")
    if not np.isfinite(file.load(name)).all():
        raise PackError(f"tensor `{name}` holds a number that is not finite", hint="tune again with a lower `--lr`")
