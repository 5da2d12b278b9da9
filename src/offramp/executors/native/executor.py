"""The native executor: the C++ core on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from offramp import _native
from offramp.errors import InvalidParameter, PackError
from offramp.executors.native.config import core_config, core_encoder, store_bytes
from offramp.executors.native.heads import exit_head, top_head
from offramp.executors.native.matrices import DTYPES
from offramp.executors.native.threads import default_threads
from offramp.executors.native.weights import load_weights
from offramp.executors.shape import model_shape
from offramp.exits.pack import ExitPack
from offramp.models import Spec
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
        num_source_blocks, max_source_len: of an encoder-decoder model: blocks in the store of sources, as many as
            `num_blocks` if None, and the longest source, None being the model's own limit.
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
        spec: Spec,
        weights: WeightSource,
        exits: ExitPack,
        *,
        block_size: int,
        num_blocks: int,
        max_model_len: int | None = None,
        num_source_blocks: int | None = None,
        max_source_len: int | None = None,
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
            spec,
            weights,
            exits,
            block_size=block_size,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            num_source_blocks=num_source_blocks,
            max_source_len=max_source_len,
        )
        self._classifiers = [e.classifier != "none" for e in exits.exits] + [False]
        threads = threads or default_threads()
        tuned = exits.tuned(weights)
        packed = load_weights(spec, tuned, dtype, threads)
        heads = [exit_head(e, exits, packed) for e in exits.exits] + [top_head(packed)]
        config = core_config(spec, tuned, self._shape, kv_dtype)
        encoder = core_encoder(packed, self._shape)
        try:
            self._model = _native.Model(config, packed.embedding, packed.layers, heads, threads, encoder)
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
        """Run the encoder over whole sources; see `Executor.encode`."""
        self._model.encode(batch)

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
