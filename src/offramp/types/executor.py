"""What the engine asks of the hardware: the executor protocol and the values that cross it.

Everything an executor keeps about a token lives at the token's slot of the paged store: position p of a sequence is
at slot `blocks[p // block_size] * block_size + p % block_size`. A slot holds the token's K and V in every layer
**and its hidden state at every boundary**, so a pending token needs no other bookkeeping, a prefix-cache hit brings
the hidden states along, and cutting a frontier back frees nothing.

Boundaries are numbered 1..S for the exits and S+1 for the top (the last layer's output, before the final norm);
boundary 0 is the embedding. Segment s reads boundary s and writes boundary s+1; segments are numbered 0..S.

Where an exit reads the past, a slot also holds the token's *deep state*. Whenever a row's token is chosen, the state
that it was chosen from is written there: the hidden state at the top, or at an exit what meets the norm of its head.
So the last to score a row is the one whose state stays, as it is the one whose token stays.

An encoder-decoder model has a second store, of *sources*: what `encode` makes of one, the K and V that every layer's
cross-attention reads, lies there by a block table of its own, written once and only read from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from offramp.types.sampling import SamplingParams

Feature = Literal["max_prob", "margin", "entropy", "saturation", "classifier"]

HIDDEN_FEATURES: frozenset[Feature] = frozenset({"saturation", "classifier"})
"""Features read off hidden states alone; asking for only these evaluates no head."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """What the engine must know of an encoder: sources of up to `max_source_len` tokens, `num_blocks` blocks for them.

    Blocks are of `ModelShape.block_size` source tokens. `decoder_start_token_id` comes first in every output.
    """

    max_source_len: int
    num_blocks: int
    decoder_start_token_id: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the engine must know of the model an executor holds.

    `exit_layers[k-1]` is the layer of boundary k (count of layers run), ascending, all < `num_layers`. `reads_past`: an
    exit reads the deep state of the token before. `encoder` is None for a decoder-only model.
    """

    num_layers: int
    exit_layers: tuple[int, ...]
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    block_size: int
    num_blocks: int
    reads_past: bool = False
    encoder: EncoderShape | None = None

    @property
    def num_segments(self) -> int:
        """S + 1: one more than there are exits."""
        return len(self.exit_layers) + 1

    @property
    def layers_at(self) -> tuple[int, ...]:
        """Layers run on arrival at boundary 0..S+1."""
        return (0, *self.exit_layers, self.num_layers)


class SourceRows(NamedTuple):
    """A whole source to be encoded: its token ids, and its block table in the store of sources."""

    tokens: Sequence[int]
    blocks: Sequence[int]


class Source(NamedTuple):
    """An encoded source: how many tokens it has, and its block table in the store of sources."""

    length: int
    blocks: Sequence[int]


class SeqRows(NamedTuple):
    """Token rows of one sequence in a flat batch.

    `positions` ascend; `tokens` (token ids, read by segment 0 only) align with them; `blocks` is the sequence's block
    table and covers every position. `source` is what its cross-attention reads, None for a decoder-only model.
    """

    positions: Sequence[int]
    tokens: Sequence[int]
    blocks: Sequence[int]
    source: Source | None = None


class ScoreRow(NamedTuple):
    """A position whose hidden state chooses the token for `position + 1`.

    `prompt` and `output` are the token ids up to and including `position` (empty unless `sampling.reads_history`);
    `banned` are ids that may not be chosen. `allowed` is a mask of those that may, None for all: token t may if bit
    t % 8 of byte t // 8 is set, and none may whose byte is beyond its end.
    """

    position: int
    blocks: Sequence[int]
    sampling: SamplingParams
    seed: int
    prompt: Sequence[int] = ()
    output: Sequence[int] = ()
    banned: Sequence[int] = ()
    allowed: bytes | None = None


class Scored(NamedTuple):
    """What scoring a row gave.

    `token` is None where nothing may be chosen: the exit head's "other" output won, a mask left no candidate, a
    positive bias names a token outside the head's vocabulary, or no choice was asked for. `features` holds exactly
    what was asked for, at temperature 1, after penalties, bias, bans and masks: `max_prob`, `margin` (top-2 probability
    gap) and `classifier` in [0, 1]; `entropy` in nats divided by ln(number of the head's outcomes, masked or not), in
    [0, 1]; `saturation` = max(0, cosine) with the hidden state at the previous boundary, absent at boundary 1.
    `logprobs` is the chosen token's log-probability followed by the most likely tokens', or None.
    """

    token: int | None
    features: Mapping[Feature, float]
    logprobs: tuple[tuple[int, float], ...] | None = None


@runtime_checkable
class Executor(Protocol):
    """Runs segments on hardware. Knows no requests and no policies."""

    @property
    def shape(self) -> ModelShape:
        """The model's shape and the size of the paged store."""
        ...

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Run the encoder over whole sources; write every decoder layer's cross-attention K and V at their slots.

        Only for a shape with an `encoder`. The hidden states of an encoder are read by nobody else and not kept.
        """
        ...

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        """Run the segment's layers over the rows.

        Reads boundary `segment` (the embedding of `tokens` for 0), writes K and V in each of the segment's layers at
        the rows' slots before any row attends, writes boundary `segment + 1`. A row at position p attends to
        positions 0..p of its sequence; the caller guarantees that all of them are written in this segment, and that
        the slots of a batch are distinct: rows are computed at the same time.
        """
        ...

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        """Write K and V in all layers of `segments` from the unchanged hidden states at `boundary`.

        Hidden-state propagation of CALM (Schuster et al. 2022). Boundaries are not written.
        """
        ...

    def score(
        self,
        boundary: int,
        rows: Sequence[ScoreRow],
        needs: frozenset[Feature],
        *,
        choose: bool = True,
    ) -> list[Scored]:
        """Score rows at an exit (boundary 1..S) or at the top (S+1).

        With `choose` false and only hidden features in `needs`, no head is evaluated. Heads that read the past find the
        deep state of `position - 1` at its slot, 0 for position 0; a head that is evaluated writes that of `position`.

        Raises:
            PackError: `classifier` asked for at an exit that has none.
        """
        ...

    def read_state(self, position: int, blocks: Sequence[int]) -> object:
        """The deep state of a token, to be written back with `write_state`; None where no exit reads it."""
        ...

    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        """Write what `read_state` gave to the slot of the same token, which may have moved."""
        ...

    def features_at(self, boundary: int) -> frozenset[Feature]:
        """The features that can be asked for at an exit."""
        ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target): K, V, hidden and deep states."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done everything asked so far."""
        ...
