"""What every executor settles before it loads a model."""

from __future__ import annotations

from offramp.exits.pack import ExitPack
from offramp.models import Spec, T5Spec
from offramp.types.checks import MAX_SIZE, check_integer
from offramp.types.executor import EncoderShape, ModelShape
from offramp.weights.source import WeightSource


def model_shape(
    spec: Spec,
    weights: WeightSource,
    exits: ExitPack,
    *,
    block_size: int,
    num_blocks: int,
    max_model_len: int | None,
    num_source_blocks: int | None = None,
    max_source_len: int | None = None,
) -> ModelShape:
    """The shape of a model with these exits and a paged store of this size.

    `num_source_blocks` (by default `num_blocks`) and `max_source_len` (the model's own limit) are for a T5.

    Raises:
        InvalidParameter: a size that is not allowed.
        PackError: the exit pack is for another model.
        WeightsError: the final norm cannot be read.
    """
    check_integer("block_size", block_size, 1, MAX_SIZE)
    check_integer("num_blocks", num_blocks, 1, MAX_SIZE)
    if max_model_len is not None:
        check_integer("max_model_len", max_model_len, 1, spec.max_model_len)
    exits.check_model(spec, weights.load(spec.final_norm))
    return ModelShape(
        num_layers=spec.num_layers,
        exit_layers=exits.layers,
        vocab_size=spec.vocab_size,
        max_model_len=max_model_len or spec.max_model_len,
        eos_token_ids=spec.eos_token_ids,
        block_size=block_size,
        num_blocks=num_blocks,
        reads_past=exits.reads_past,
        encoder=_encoder(spec, num_blocks, num_source_blocks, max_source_len),
    )


def _encoder(
    spec: Spec, num_blocks: int, num_source_blocks: int | None, max_source_len: int | None
) -> EncoderShape | None:
    if not isinstance(spec, T5Spec):
        return None
    if num_source_blocks is not None:
        check_integer("num_source_blocks", num_source_blocks, 1, MAX_SIZE)
    if max_source_len is not None:
        check_integer("max_source_len", max_source_len, 1, spec.max_model_len)
    return EncoderShape(
        max_source_len or spec.max_model_len, num_source_blocks or num_blocks, spec.decoder_start_token_id
    )
