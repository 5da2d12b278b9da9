"""The torch executor: the reference, and the way to run on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.errors import InvalidParameter
from offramp.executors.shape import model_shape
from offramp.executors.torch.attention import by_row_count
from offramp.executors.torch.heads import exit_head, top_head
from offramp.executors.torch.llama import LlamaTrunk
from offramp.executors.torch.scoring import score_rows
from offramp.executors.torch.store import PagedStore
from offramp.executors.torch.t5 import T5Trunk
from offramp.executors.torch.trunk import Trunk
from offramp.exits.pack import ExitPack
from offramp.models import Spec, T5Spec
from offramp.types.checks import check_one_of
from offramp.types.executor import Feature, ModelShape, Scored, ScoreRow, SeqRows, SourceRows
from offramp.weights.source import WeightSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class TorchExecutor:
    """An `offramp.types.executor.Executor` on any torch device.

    Tested on the CPU and on CUDA. Nothing is specific to a device, but `mps` has not been run.

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
        device: a torch device, e.g. `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: `float32`, `bfloat16` or `float64`, of weights, K and V and hidden states. Norms and softmax are computed
            in float32 at least.

    Raises:
        InvalidParameter: an option that is not allowed, a device that is not here, or a store that memory cannot hold.
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
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        check_one_of("dtype", dtype, tuple(DTYPES))
        where, kind = find_device(device), DTYPES[dtype]
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
        with torch.inference_mode():
            boundaries = self._shape.num_segments + self._shape.reads_past
            make_store = partial(PagedStore, spec, block_size=block_size, device=where, dtype=kind)
            self._store = make_store(boundaries, num_blocks=num_blocks)
            self._trunk: Trunk
            if isinstance(spec, T5Spec):
                assert self._shape.encoder is not None
                sources = make_store(0, num_blocks=self._shape.encoder.num_blocks)
                self._trunk = T5Trunk(spec, exits.tuned(weights), self._store, sources)
            else:
                self._trunk = LlamaTrunk(spec, exits.tuned(weights), self._store)
            eps = spec.rms_norm_eps
            top = top_head(self._trunk.lm_head, self._trunk.final_norm, eps, spec.head_scale)
            self._heads = [exit_head(e, exits, top, eps) for e in exits.exits] + [top]

    @property
    def shape(self) -> ModelShape:
        """The model's shape and the size of the paged store."""
        return self._shape

    @torch.inference_mode()
    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Run the encoder over whole sources; see `Executor.encode`."""
        self._trunk.encode(batch)

    @torch.inference_mode()
    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        """Run the segment's layers over the rows; see `Executor.run_segment`."""
        batch = by_row_count(batch)
        if not batch:
            return
        slots = self._slots(batch)
        if segment == 0:
            hidden = self._trunk.embed(self._to_device([token for seq in batch for token in seq.tokens]))
        else:
            hidden = self._store.read_boundary(segment, slots)
        layers = range(*self._shape.layers_at[segment : segment + 2])
        self._store.write_boundary(segment + 1, slots, self._trunk.run(layers, batch, slots, hidden))

    @torch.inference_mode()
    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        """Write K and V in all layers of `segments` from the hidden states at `boundary` (1..S)."""
        batch = by_row_count(batch)
        if not batch or not segments:
            return
        layers = slice(self._shape.layers_at[segments.start], self._shape.layers_at[segments.stop])
        slots = self._slots(batch)
        keys, values = self._trunk.project(layers, batch, self._store.read_boundary(boundary, slots))
        self._store.write_kv(layers, slots, keys, values)

    @torch.inference_mode()
    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        """Score rows at an exit or at the top; see `Executor.score`.

        Raises:
            PackError: `classifier` asked for at an exit that has none.
        """
        if not rows:
            return []
        slots = self._to_device([self._store.slot(row.position, row.blocks) for row in rows])
        head, hidden = self._heads[boundary - 1], self._store.read_boundary(boundary, slots)
        compare = boundary > 1 and "saturation" in needs
        previous = self._store.read_boundary(boundary - 1, slots) if compare else None
        past = None if head.past is None else self._past(rows)
        scored, states = score_rows(head, hidden, previous, rows, needs, choose, past)
        if states is not None and self._shape.reads_past:
            self._store.write_boundary(self._past_boundary, slots, states)
        return scored

    @torch.inference_mode()
    def read_state(self, position: int, blocks: Sequence[int]) -> Tensor | None:
        """The deep state of a token: [hidden_size]; None where no exit reads it."""
        if not self._shape.reads_past:
            return None
        return self._store.hidden[self._past_boundary - 1, self._store.slot(position, blocks)].clone()

    @torch.inference_mode()
    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        """Write what `read_state` gave to the slot of the same token."""
        if isinstance(state, Tensor):
            self._store.hidden[self._past_boundary - 1, self._store.slot(position, blocks)] = state

    def features_at(self, boundary: int) -> frozenset[Feature]:
        """The features that can be asked for at an exit."""
        features: set[Feature] = {"max_prob", "margin", "entropy"}
        if boundary > 1:
            features.add("saturation")
        if self._heads[boundary - 1].classifier is not None:
            features.add("classifier")
        return frozenset(features)

    @torch.inference_mode()
    def hidden(self, boundary: int, slots: Sequence[int]) -> npt.NDArray[np.float32]:
        """Hidden states at a boundary (1..S+1): [slots, hidden_size]."""
        rows = self._store.read_boundary(boundary, self._to_device(list(slots)))
        return np.asarray(rows.float().cpu().numpy())

    @torch.inference_mode()
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target); all sources are read before a target is written."""
        self._store.copy_blocks(pairs)

    def synchronize(self) -> None:
        """Wait until the device has done everything asked so far."""
        device = self._store.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type != "cpu":
            getattr(torch, device.type).synchronize()

    @property
    def _past_boundary(self) -> int:
        """Where the store has deep states: they lie as if at one more boundary."""
        return self._shape.num_segments + 1

    def _past(self, rows: Sequence[ScoreRow]) -> Tensor:
        """The deep states of the tokens before `rows`: [rows, hidden_size], 0 where there is none."""
        slots = [self._store.slot(max(row.position - 1, 0), row.blocks) for row in rows]
        there = self._to_device([row.position for row in rows]) > 0
        return self._store.read_boundary(self._past_boundary, self._to_device(slots)).where(there[:, None], 0)

    def _slots(self, batch: Sequence[SeqRows]) -> Tensor:
        """Slots [rows] of the batch's rows."""
        return self._to_device([self._store.slot(p, seq.blocks) for seq in batch for p in seq.positions])

    def _to_device(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._store.device)


def find_device(name: str) -> torch.device:
    """The torch device called `name`.

    Raises:
        InvalidParameter: there is no such device here.
    """
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    here = ["cpu", *(["cuda", *cuda] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if name not in here:
        listed = ", ".join(f"`{n}`" for n in here)
        raise InvalidParameter(f"there is no device `{name}` here; there is {listed}", param="device")
    return torch.device(name)


def set_threads(count: int) -> None:
    """Compute on this many CPU threads, in the whole process."""
    torch.set_num_threads(count)
