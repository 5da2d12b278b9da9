"""What every executor settles before it loads a model."""

from __future__ import annotations

from offramp.exits.pack import ExitPack
from offramp.models.spec import ModelSpec
from offramp.types.checks import MAX_SIZE, check_integer
from offramp.types.executor import ModelShape
from offramp.weights.source import WeightSource


def model_shape(
    spec: ModelSpec,
    weights: WeightSource,
    exits: ExitPack,
    *,
    block_size: int,
    num_blocks: int,
    max_model_len: int | None,
) -> ModelShape:
    """The shape of a model with these exits and a paged store of this size.

    Raises:
        InvalidParameter: a size that is not allowed.
        PackError: the exit pack is for another model.
        WeightsError: the final norm cannot be read.
    """
    check_integer("block_size", block_size, 1, MAX_SIZE)
    check_integer("num_blocks", num_blocks, 1, MAX_SIZE)
    if max_model_len is not None:
        check_integer("max_model_len", max_model_len, 1, spec.max_model_len)
    exits.check_model(spec, weights.load("model.norm.weight"))
    return ModelShape(
        num_layers=spec.num_layers,
        exit_layers=exits.layers,
        vocab_size=spec.vocab_size,
        max_model_len=max_model_len or spec.max_model_len,
        eos_token_ids=spec.eos_token_ids,
        block_size=block_size,
        num_blocks=num_blocks,
        reads_past=exits.reads_past,
    )
