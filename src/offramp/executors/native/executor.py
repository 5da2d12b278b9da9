"""The native executor: the C++ core on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp import _native
from offramp.errors import InvalidParameter, PackError
from offramp.executors.native.heads import exit_head, top_head
from offramp.executors.native.plan import DTYPES
from offramp.executors.native.threads import default_threads
from offramp.executors.native.weights import load_weights
from offramp.executors.shape import model_shape
from offramp.exits.pack import ExitPack
from offramp.models.rope import inverse_frequencies
from offramp.models.spec import ModelSpec
from offramp.types.checks import MAX_THREADS, check_integer, check_one_of
from offramp.types.executor import Feature, ModelShape, Scored, ScoreRow, SeqRows, SourceRows
from offramp.weights.source import WeightSource

KV_DTYPES = ("float16", "float32")


class NativeExecutor:
    """An `offramp.types.executor.Executor` on the CPU, without torch.

    A row's results do not depend, in any bit, on what else is in a batch, on chunking, block size or threads.

    A row that is not finite (NaN or infinity in its logits) fails alone: its `Scored.token` is None, at the top too,
    where the engine must fail the request. The same holds where bans leave no candidate.

    Args:
        spec: the model.
        weights: its tensors, by Hugging Face names; what `exits` change of them is merged in.
        exits: the exits; `offramp.exits.pack.static_exits` for the model's own head at some layers.
        block_size: tokens per block.
        num_blocks: blocks in the paged store.
        max_model_len: longest sequence; None is the model's own limit.
        dtype: of weights: `float32`, `float16`, `bfloat16`, `int8` or `int4` (groups of 32 share a scale). Norms,
            biases and hidden states are float32.
        kv_dtype: of K and V: `float16` or `float32`.
        threads: threads for computing, 1 to 1024; None is one for each core.

    Raises:
        InvalidParameter: an option that is not allowed, or a paged store that memory cannot hold.
        PackError: the exit pack is for another model.
        WeightsError: a tensor cannot be read.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        exits: ExitPack,
        *,
        block_size: int,
        num_blocks: int,
        max_model_len: int | None = None,
        dtype: str = "int8",
        kv_dtype: str = "float16",
        threads: int | None = None,
    ) -> None:
        check_one_of("dtype", dtype, tuple(DTYPES))
        check_one_of("kv_dtype", kv_dtype, KV_DTYPES)
        if threads is not None:
            check_integer("threads", threads, 1, MAX_THREADS)
        instruction_set()
        self._shape = model_shape(
            spec, weights, exits, block_size=block_size, num_blocks=num_blocks, max_model_len=max_model_len
        )
        self._classifiers = [e.classifier != "none" for e in exits.exits] + [False]
        threads = threads or default_threads()
        packed = load_weights(spec, exits.tuned(weights), dtype, threads)
        heads = [exit_head(e, exits, packed) for e in exits.exits] + [top_head(packed)]
        config = {**_config(spec, self._shape), "half_kv": kv_dtype == "float16"}
        try:
            self._model = _native.Model(config, packed.embedding, packed.layers, heads, threads)
        except MemoryError as error:
            needed = store_bytes(spec, self._shape, kv_dtype)
            raise InvalidParameter(
                f"the KV cache of {num_blocks * block_size} tokens needs {needed} bytes, which cannot be had",
                param="kv_tokens",
                hint="lower `kv_tokens`, or `max_model_len` and `block_size` where they ask for more",
            ) from error

    @property
    def shape(self) -> ModelShape:
        """The model's shape and the size of the paged store."""
        return self._shape

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Never asked for: no model here has an encoder."""
        raise AssertionError("the native executor has no encoder")

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        """Run the segment's layers over the rows; see `Executor.run_segment`."""
        self._model.run_segment(segment, batch)

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        """Write K and V in all layers of `segments` from the hidden states at `boundary` (1..S)."""
        self._model.pass_tokens(boundary, segments.start, segments.stop, batch)

    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        """Score rows at an exit or at the top; see `Executor.score`.

        Raises:
            PackError: `classifier` asked for at an exit that has none.
        """
        if "classifier" in needs and not self._classifiers[boundary - 1]:
            raise PackError(
                "`classifier` was asked for at an exit that has none", hint="use another criterion, or a pack with one"
            )
        return self._model.score(boundary, rows, needs, choose)

    def features_at(self, boundary: int) -> frozenset[Feature]:
        """The features that can be asked for at an exit."""
        features: set[Feature] = {"max_prob", "margin", "entropy"}
        if boundary > 1:
            features.add("saturation")
        if self._classifiers[boundary - 1]:
            features.add("classifier")
        return frozenset(features)

    def hidden(self, boundary: int, slots: Sequence[int]) -> npt.NDArray[np.float32]:
        """Hidden states at a boundary (1..S+1): [slots, hidden_size]."""
        return np.stack([self._model.read_hidden(boundary, slot) for slot in slots])

    def read_state(self, position: int, blocks: Sequence[int]) -> npt.NDArray[np.float32] | None:
        """The deep state of a token: [hidden_size]; None where no exit reads it."""
        if not self._shape.reads_past:
            return None
        return self._model.read_hidden(self._shape.num_segments + 1, self._slot(position, blocks))

    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        """Write what `read_state` gave to the slot of the same token."""
        if isinstance(state, np.ndarray):
            self._model.write_hidden(self._shape.num_segments + 1, self._slot(position, blocks), state)

    def _slot(self, position: int, blocks: Sequence[int]) -> int:
        size = self._shape.block_size
        return blocks[position // size] * size + position % size

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target); all sources are read before a target is written."""
        self._model.copy_blocks(pairs)

    def synchronize(self) -> None:
        """Nothing to wait for: every call returns when it is done."""


def instruction_set() -> str:
    """The instruction set in use: the best here, or what `OFFRAMP_ISA` names.

    Raises:
        InvalidParameter: `OFFRAMP_ISA` names none that this machine can run.
    """
    try:
        return _native.isa()
    except ValueError as error:
        raise InvalidParameter(f"`OFFRAMP_ISA`: {error}", param="OFFRAMP_ISA") from error


def store_bytes(spec: ModelSpec, shape: ModelShape, kv_dtype: str) -> int:
    """Bytes of the paged store: K and V of every layer, hidden states at every boundary, and deep states."""
    kv = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * (2 if kv_dtype == "float16" else 4)
    hidden = (shape.num_segments + shape.reads_past) * spec.hidden_size * 4
    return shape.num_blocks * shape.block_size * (kv + hidden)


def _config(spec: ModelSpec, shape: ModelShape) -> dict[str, Any]:
    """What the C++ core must know of the model, by the names of `Config` in `csrc/model.h`."""
    frequencies, factor = inverse_frequencies(spec.rope, spec.head_dim)
    return {
        "hidden": spec.hidden_size,
        "intermediate": spec.intermediate_size,
        "heads": spec.num_heads,
        "kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "vocab": spec.vocab_size,
        "max_positions": shape.max_model_len,
        "eps": spec.rms_norm_eps,
        "frequencies": frequencies,
        "rope_factor": factor,
        "layers_at": list(shape.layers_at),
        "block_size": shape.block_size,
        "num_blocks": shape.num_blocks,
    }
