"""The weights of a model's folder: one safetensors file, or shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from offramp.errors import WeightsError
from offramp.weights.eight_bits import EightBitsFile
from offramp.weights.source import Array, Blocks, no_such_tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class SafetensorsWeights:
    """The weights of a folder in Hugging Face form: `model.safetensors`, or the shards its index names.

    An index beside the single file is left from an earlier save, as in Transformers. Matrices may be in 8 bits
    (`offramp.weights.eight_bits`), and are then to be had as blocks.

    Raises:
        WeightsError: no weight file in the folder, or a file or index that is corrupt.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / SINGLE).is_file():
            self._files: tuple[EightBitsFile, ...] = (EightBitsFile(folder / SINGLE),)
        elif (folder / INDEX).is_file():
            self._files = _shards(folder)
        else:
            raise WeightsError(
                f"`{folder}` holds no weights; looked for `{SINGLE}` and `{INDEX}`",
                hint="save the model with `save_pretrained(folder, safe_serialization=True)`",
            )
        self._home: dict[str, EightBitsFile] = {}
        for file in self._files:
            for name in file.shapes:
                if name in self._home:
                    raise WeightsError(f"tensor `{name}` is in both `{self._home[name].path}` and `{file.path}`")
                self._home[name] = file

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, by name."""
        return tuple(file.path for file in self._files)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: file.shapes[name] for name, file in self._home.items()}

    def load(self, name: str) -> Array:
        """The tensor; see `WeightSource.load`."""
        return self._file(name).load(name)

    def block_kind(self, name: str) -> str | None:
        """How a matrix is quantised; see `BlockSource.block_kind`."""
        return self._file(name).block_kind(name)

    def raw(self, name: str) -> Blocks:
        """The stored blocks of a quantised matrix; see `BlockSource.raw`."""
        return self._file(name).raw(name)

    def _file(self, name: str) -> EightBitsFile:
        if name not in self._home:
            raise no_such_tensor(name, self.folder)
        return self._home[name]


def _shards(folder: Path) -> tuple[EightBitsFile, ...]:
    index = folder / INDEX
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"`{index}` is not an index of safetensors files: no readable `weight_map`") from error
    files: dict[str, EightBitsFile] = {}
    for name in sorted(set(names.values())):
        if Path(name).name != name:
            raise WeightsError(f"`{index}` names `{name}`; a shard must lie beside its index")
        files[name] = EightBitsFile(folder / name)
    for tensor, name in names.items():
        if tensor not in files[name].shapes:
            raise WeightsError(f"`{index}` says that tensor `{tensor}` is in `{name}`, which does not hold it")
    return tuple(files.values())
