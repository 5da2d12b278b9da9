"""Sources that can never be encoded are refused, and requests that have one and should not, or should and have none."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.engine.request import Request
from offramp.errors import CacheTooSmall, InvalidParameter, Unsupported
from offramp.types.executor import ModelShape


def check_source(request: Request, shape: ModelShape) -> None:
    """Check the source of a request, and what cannot be asked beside one.

    Raises:
        InvalidParameter, Unsupported, CacheTooSmall: with a message that says what is allowed.
    """
    encoder, length = shape.encoder, len(request.source)
    if encoder is None:
        if length:
            raise Unsupported("the model has no encoder to read a `source`", hint="give a prompt alone")
        return
    if not length:
        raise InvalidParameter(
            "the source is empty: the model has an encoder, which reads what the output is made from",
            param="source",
            hint="give at least one token as `source`",
        )
    if length > encoder.max_source_len:
        raise InvalidParameter(
            f"the source has {length} tokens, the encoder reads {encoder.max_source_len}",
            param="source",
            hint="shorten the source, or raise `max_source_len`",
        )
    room = encoder.num_blocks * shape.block_size
    if -(-length // shape.block_size) > encoder.num_blocks:
        raise CacheTooSmall(
            f"the source has {length} tokens, the store of sources holds {room}",
            hint="shorten the source, or raise `source_tokens`",
        )
    check_ids("source", request.source, shape)
    if request.echo_only or request.prompt_logprobs is not None:
        raise Unsupported(
            "the model has an encoder, whose source is read whole: nothing says how likely its tokens are",
            hint="leave out `echo` and `prompt_logprobs`",
        )


def check_ids(name: str, tokens: Sequence[int], shape: ModelShape) -> None:
    """Check that tokens are of the vocabulary.

    Raises:
        InvalidParameter: one is not.
    """
    for token in tokens:
        if type(token) is not int or not 0 <= token < shape.vocab_size:
            raise InvalidParameter(
                f"{name} token {token!r} is not a token id, a whole number below {shape.vocab_size}", param=name
            )
