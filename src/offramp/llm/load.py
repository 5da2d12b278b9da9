"""From names to an executor: the model and its exits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter, Unsupported
from offramp.exits.pack import ExitPack, static_exits
from offramp.exits.read import read_pack
from offramp.llm.backend import Backend
from offramp.llm.stores import StoreSizes
from offramp.models import AnyModel
from offramp.types.checks import MAX_THREADS, check_integer
from offramp.types.executor import Executor


def resolve_exits(exits: Sequence[int] | str | Path | None, model: AnyModel) -> ExitPack:
    """The exits of a model: given layers, an exit pack by folder or name, or by default two thirds and five sixths of
    the way up.

    Raises:
        InvalidParameter, PackError: layers outside the model, or a pack that does not fit.
    """
    depth = model.spec.num_layers
    if exits is None:
        layers = sorted({max(1, depth * 2 // 3), max(1, depth * 5 // 6)} - {depth})
        return static_exits(layers, depth)
    if isinstance(exits, str | Path):
        return read_pack(exits)
    if not isinstance(exits, list | tuple | range):
        raise InvalidParameter(f"`exits` must be layers or the folder of an exit pack, not {exits!r}", param="exits")
    return static_exits(list(exits), depth)


def make_executor(
    model: AnyModel,
    exits: ExitPack,
    backend: Backend,
    *,
    block_size: int,
    stores: StoreSizes,
    threads: int | None,
) -> Executor:
    """The executor of `backend`, with the model loaded.

    Raises:
        InvalidParameter: unknown device, too many threads, or a store that memory cannot hold.
        PackError, WeightsError: the exits do not fit the model, or a tensor cannot be read.
        Unsupported: a pack with a trunk adapter, in int4.
    """
    if exits.trunk is not None and backend.dtype == "int4":
        raise Unsupported(
            "the exit pack changes the model's own layers, and that change is finer than the steps of int4",
            hint="use another `dtype`, such as int8, or another pack",
        )
    sizes: dict[str, Any] = {
        "block_size": block_size,
        "num_blocks": stores.num_blocks,
        "max_model_len": stores.context,
        "num_source_blocks": stores.num_source_blocks or None,
        "max_source_len": stores.source_len or None,
    }
    if backend.executor == "native":
        from offramp.executors.native import NativeExecutor

        return NativeExecutor(
            model.spec,
            model.weights,
            exits,
            dtype=backend.dtype,
            kv_dtype=backend.kv_dtype,
            threads=threads,
            **sizes,
        )
    from offramp.executors.torch import TorchExecutor, set_threads

    if threads is not None:
        check_integer("threads", threads, 1, MAX_THREADS)
        set_threads(threads)
    return TorchExecutor(
        model.spec,
        model.weights,
        exits,
        device=backend.device,
        dtype=backend.dtype,
        **sizes,
    )
