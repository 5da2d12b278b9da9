"""How large the stores are: of tokens, and of sources where there is an encoder."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.errors import CacheTooSmall, InvalidParameter
from offramp.exits.pack import ExitPack
from offramp.llm.backend import Backend
from offramp.models import Spec, T5Spec
from offramp.types.checks import MAX_SIZE, check_integer

DEFAULT_CONTEXT = 8192
"""The context kept ready unless more is asked for, if the model's own is longer."""

DEFAULT_WITH_ENCODER = 2048
"""The same of a model with an encoder, and its longest source: what an encoder costs grows with the square of that."""

DEFAULT_STORE_BYTES = 2**30
"""The stores take about this much together unless a single request needs more."""


@dataclass(frozen=True, slots=True)
class StoreSizes:
    """The longest sequence and the blocks for sequences; the same of sources, 0 for a decoder-only model."""

    context: int
    num_blocks: int
    source_len: int = 0
    num_source_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Stores:
    """What a model of `spec` with the exits of `pack` keeps on a backend.

    A token of a sequence has K and V in every layer, hidden states and, where an exit reads the past, a deep state; one
    of a source has K and V in every layer of the decoder, for its cross-attention.
    """

    spec: Spec
    pack: ExitPack
    backend: Backend

    @property
    def has_sources(self) -> bool:
        """Whether there is an encoder."""
        return isinstance(self.spec, T5Spec)

    @property
    def source_bytes(self) -> int:
        """Bytes of a token in the store of sources."""
        return 2 * self.spec.num_layers * self.spec.num_kv_heads * self.spec.head_dim * self.backend.kv_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of a token in the store of sequences."""
        states = len(self.pack.exits) + 1 + self.pack.reads_past
        return self.source_bytes + states * self.spec.hidden_size * self.backend.hidden_bytes

    def split(self, memory: int, context: int, source_len: int) -> tuple[int, int]:
        """Tokens and source tokens that so many bytes hold: as many longest sequences as longest sources."""
        if not self.has_sources:
            return memory // self.token_bytes, 0
        together = context * self.token_bytes + source_len * self.source_bytes
        return memory * context // together, memory * source_len // together

    def sizes(
        self,
        *,
        max_model_len: int | None,
        max_source_len: int | None,
        kv_tokens: int | None,
        source_tokens: int | None,
        block_size: int,
        max_num_seqs: int,
    ) -> StoreSizes:
        """What is asked for; what is left open by default.

        Raises:
            InvalidParameter, CacheTooSmall: sizes that no store has, or tokens that fill no block, or something about
                sources without an encoder.
        """
        check_integer("block_size", block_size, 1, MAX_SIZE)
        context, source_len = self.lengths(max_model_len, max_source_len)
        tokens, source_tokens_kept = self.split(DEFAULT_STORE_BYTES, context, source_len)

        def blocks(name: str, asked: int | None, affordable: int, longest: int) -> int:
            if asked is None:
                return -(-min(max(affordable, longest), max_num_seqs * longest) // block_size)
            check_integer(name, asked, 1, MAX_SIZE * block_size)
            if asked < block_size:
                raise CacheTooSmall(f"`{name}` is {asked}, less than one block of {block_size}", hint=f"raise `{name}`")
            return asked // block_size

        num_blocks = blocks("kv_tokens", kv_tokens, tokens, context)
        if not self.has_sources:
            self._refuse("source_tokens", source_tokens)
            return StoreSizes(context, num_blocks)
        num_source_blocks = blocks("source_tokens", source_tokens, source_tokens_kept, source_len)
        return StoreSizes(context, num_blocks, source_len, num_source_blocks)

    def lengths(self, max_model_len: int | None, max_source_len: int | None) -> tuple[int, int]:
        """The longest sequence, and the longest source: 0 without an encoder.

        Raises:
            InvalidParameter: longer than the model's own, or a source without an encoder.
        """
        context = context_length(self.spec, max_model_len)
        if not self.has_sources:
            self._refuse("max_source_len", max_source_len)
            return context, 0
        return context, _length("max_source_len", self.spec, max_source_len, 1)

    def _refuse(self, name: str, asked: int | None) -> None:
        if asked is not None:
            raise InvalidParameter(
                f"`{name}` is {asked}, and the model has no encoder", param=name, hint=f"leave out `{name}`"
            )


def context_length(spec: Spec, asked: int | None) -> int:
    """The context to serve.

    Raises:
        InvalidParameter: longer than the model's own.
    """
    return _length("max_model_len", spec, asked, 2)


def _length(name: str, spec: Spec, asked: int | None, least: int) -> int:
    if asked is None:
        return min(spec.max_model_len, DEFAULT_WITH_ENCODER if isinstance(spec, T5Spec) else DEFAULT_CONTEXT)
    check_integer(name, asked, least)
    if asked > spec.max_model_len:
        raise InvalidParameter(f"`{name}` is {asked}, the model's context is {spec.max_model_len}", param=name)
    return asked
