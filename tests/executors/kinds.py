"""The executors that tests run on, and a way into their stores that is the same for all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from offramp.executors.native import NativeExecutor
from offramp.executors.torch import TorchExecutor
from offramp.executors.torch.t5 import T5Trunk
from offramp.exits.pack import ExitPack
from offramp.models import Spec
from offramp.types.executor import Executor
from offramp.weights.source import WeightSource

KINDS: Mapping[str, Mapping[str, Any]] = {
    "torch": {"dtype": "float64", "device": os.environ.get("OFFRAMP_TEST_DEVICE", "cpu")},
    "native": {"dtype": "float32", "kv_dtype": "float32", "threads": 1},
    "native-int8": {"dtype": "int8", "kv_dtype": "float16", "threads": 2},
}
"""The torch executor in float64, the native one in float32, and the native one as users have it.

`OFFRAMP_TEST_DEVICE=cuda` runs the torch executor's tests there.
"""


def make_executor(kind: str, spec: Spec, source: WeightSource, pack: ExitPack, **options: Any) -> Executor:
    """An executor of one of `KINDS`; `options` come before those of the kind."""
    options = {**KINDS[kind], **options}
    if kind == "torch":
        return TorchExecutor(spec, source, pack, **options)
    return NativeExecutor(spec, source, pack, **options)


def slots_of(executor: Executor, positions: Sequence[int], blocks: Sequence[int]) -> list[int]:
    """Slots of positions in a block table."""
    size = executor.shape.block_size
    return [blocks[p // size] * size + p % size for p in positions]


def read_kv(executor: Executor, layer: int, slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """K and V [slots, kv_heads * head_dim] of one layer."""
    if isinstance(executor, TorchExecutor):
        store = executor._store
        keys, values = (stored[layer, list(slots)].flatten(1).cpu().numpy() for stored in (store.keys, store.values))
        return keys, values
    assert isinstance(executor, NativeExecutor)
    pairs = [executor._model.read_kv(layer, slot) for slot in slots]
    return np.stack([k for k, _ in pairs]), np.stack([v for _, v in pairs])


def read_source(executor: Executor, layer: int, slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """K and V [slots, heads * head_dim] of one layer's cross-attention."""
    if isinstance(executor, TorchExecutor):
        assert isinstance(executor._trunk, T5Trunk)
        store = executor._trunk._sources
        keys, values = (stored[layer, list(slots)].flatten(1).cpu().numpy() for stored in (store.keys, store.values))
        return keys, values
    assert isinstance(executor, NativeExecutor)
    pairs = [executor._model.read_source(layer, slot) for slot in slots]
    return np.stack([k for k, _ in pairs]), np.stack([v for _, v in pairs])


def read_hidden(executor: Executor, boundary: int, slots: Sequence[int]) -> np.ndarray:
    """Hidden states [slots, hidden_size] at a boundary."""
    if isinstance(executor, TorchExecutor):
        return executor._store.read_boundary(boundary, executor._to_device(list(slots))).cpu().numpy()
    assert isinstance(executor, NativeExecutor)
    return np.stack([executor._model.read_hidden(boundary, slot) for slot in slots])


def write_hidden(executor: Executor, boundary: int, slots: Sequence[int], hidden: np.ndarray) -> None:
    """Write hidden states [slots, hidden_size] as if segments had."""
    if isinstance(executor, TorchExecutor):
        with torch.inference_mode():
            store = executor._store.hidden
            states = torch.tensor(hidden, dtype=store.dtype, device=store.device)
            executor._store.write_boundary(boundary, executor._to_device(list(slots)), states)
        return
    assert isinstance(executor, NativeExecutor)
    for slot, row in zip(slots, hidden, strict=True):
        executor._model.write_hidden(boundary, slot, np.ascontiguousarray(row, dtype=np.float32))


def read_state(executor: Executor, position: int, blocks: Sequence[int]) -> np.ndarray:
    """The deep state of a token: [hidden_size]."""
    state = executor.read_state(position, blocks)
    return np.asarray(state.cpu() if isinstance(state, torch.Tensor) else state)
