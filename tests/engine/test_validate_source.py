"""Sources that can never be encoded are refused, each with its reason, and so is what cannot be asked beside one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offramp.engine.engine import Engine
from offramp.engine.request import Request
from offramp.errors import OfframpError
from tests.engine.paged import PagedExecutor
from tests.engine.test_sources import make_engine, request
from tests.oracle.hash_model import HashModel


def refusal(engine: Engine, asked: Request) -> OfframpError:
    with pytest.raises(OfframpError) as caught:
        engine.submit(asked)
    assert not engine.has_work
    return caught.value


def test_a_model_without_encoder_refuses_sources() -> None:
    engine = Engine(PagedExecutor(HashModel(), block_size=2, num_blocks=8))
    error = refusal(engine, request((3, 4), prompt=(1, 2)))
    assert error.message == "the model has no encoder to read a `source`"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((), "the source is empty: the model has an encoder, which reads what the output is made from"),
        ((1,) * 13, "the source has 13 tokens, the encoder reads 12"),
        ((1,) * 11, "the source has 11 tokens, the store of sources holds 10"),
        ((1, 13), "source token 13 is not a token id, a whole number below 13"),
        ((1, -1), "source token -1 is not a token id, a whole number below 13"),
        ((1, "2"), "source token '2' is not a token id, a whole number below 13"),
    ],
)
def test_a_source_that_can_never_be_encoded_is_refused(source: tuple[int, ...], message: str) -> None:
    assert refusal(make_engine(num_source_blocks=5), request(source, prompt=(1, 2))).message == message


def test_nothing_is_told_of_the_tokens_of_a_source() -> None:
    for more in ({"prompt_logprobs": 1}, {"echo_only": True}):
        asked = replace(request((3, 4)), **more)
        assert refusal(make_engine(), asked).message.startswith("the model has an encoder, whose source is read whole")
