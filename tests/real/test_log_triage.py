"""The lines of `examples/log_triage` in the default model's tokens."""

from __future__ import annotations

from itertools import islice

import pytest

from examples.log_triage.make_data import SIZES, records
from offramp.models import load_model
from offramp.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_model("smollm2-135m").tokenizer


@pytest.mark.parametrize("split", SIZES)
def test_prompts_and_answers_are_short_and_their_tokens_add_up(split: str, tokenizer: Tokenizer) -> None:
    total, count = 0, 300
    for record in islice(records(split, 0), count):
        prompt = tokenizer.encode(record["prompt"])
        completion = tokenizer.encode(record["completion"], add_special_tokens=False)
        assert 5 <= len(prompt) <= 110 and 60 <= len(completion) <= 130
        assert tokenizer.encode(record["prompt"] + record["completion"]) == prompt + completion
        total += len(prompt)
    assert 30 < total / count < 45
