"""From names to an executor: the model, its exits, and a paged store that fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offramp.errors import CacheTooSmall, InvalidParameter, Unsupported
from offramp.exits.pack import ExitPack, static_exits
from offramp.exits.read import read_pack
from offramp.llm.backend import Backend
from offramp.models import AnyModel, LoadedModel, Spec
from offramp.types.checks import MAX_SIZE, MAX_THREADS, check_integer
from offramp.types.executor import Executor

DEFAULT_CONTEXT = 8192
"""The context kept ready unless more is asked for, if the model's own is longer."""

DEFAULT_STORE_BYTES = 2**30
"""The paged store takes about this much unless a single context needs more."""


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


def context_length(spec: Spec, asked: int | None) -> int:
    """The context to serve.

    Raises:
        InvalidParameter: longer than the model's own.
    """
    if asked is None:
        return min(spec.max_model_len, DEFAULT_CONTEXT)
    check_integer("max_model_len", asked, 2)
    if asked > spec.max_model_len:
        raise InvalidParameter(
            f"`max_model_len` is {asked}, the model's context is {spec.max_model_len}", param="max_model_len"
        )
    return asked


def token_bytes(spec: Spec, states: int, backend: Backend) -> int:
    """Bytes that a token takes in the paged store: K, V and so many hidden and deep `states`."""
    kv = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * backend.kv_bytes
    return kv + states * spec.hidden_size * backend.hidden_bytes


def store_blocks(
    spec: Spec,
    states: int,
    context: int,
    block_size: int,
    max_num_seqs: int,
    kv_tokens: int | None,
    backend: Backend,
) -> int:
    """How many blocks the paged store gets, with so many hidden and deep `states` for a token.

    Raises:
        InvalidParameter, CacheTooSmall: sizes that no store has, or `kv_tokens` that hold no block.
    """
    check_integer("block_size", block_size, 1, MAX_SIZE)
    if kv_tokens is None:
        affordable = DEFAULT_STORE_BYTES // token_bytes(spec, states, backend)
        kv_tokens = min(max(affordable, context), max_num_seqs * context)
        return -(-kv_tokens // block_size)
    check_integer("kv_tokens", kv_tokens, 1, MAX_SIZE * block_size)
    if kv_tokens < block_size:
        raise CacheTooSmall(
            f"`kv_tokens` is {kv_tokens}, less than one block of {block_size}", hint="raise `kv_tokens`"
        )
    return kv_tokens // block_size


def make_executor(
    model: AnyModel,
    exits: ExitPack,
    backend: Backend,
    *,
    block_size: int,
    num_blocks: int,
    context: int,
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
    sizes = {"block_size": block_size, "num_blocks": num_blocks, "max_model_len": context}
    if backend.executor == "native":
        assert isinstance(model, LoadedModel)
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
    return TorchExecutor(model.spec, model.weights, exits, device=backend.device, dtype=backend.dtype, **sizes)
