"""Log-probabilities of given tokens, against Transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from offramp.evaluate.likelihood import likelihoods
from offramp.llm import LLM
from offramp.llm.forced import Forced


def transformers_log_probs(model: Path, tokens: list[int]) -> torch.Tensor:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        return torch.log_softmax(loaded(torch.tensor([tokens])).logits[0].double(), -1)


def test_they_are_those_of_transformers_for_likely_and_unlikely_tokens(llm: LLM, model: Path) -> None:
    state = torch.Generator().manual_seed(0)
    texts = [torch.randint(1, 258, (n,), generator=state).tolist() for n in (3, 40, 90, 17, 100)]
    starts = [1, 1, 60, 17, 5]
    asked = [Forced(text, start) for text, start in zip(texts, starts, strict=True)]
    found = likelihoods(llm.engine, asked)
    for text, start, seen in zip(texts, starts, found, strict=True):
        expected = transformers_log_probs(model, text)
        assert len(seen) == len(text) - start
        for position, token in enumerate(seen, start=start):
            assert token.log_prob == pytest.approx(float(expected[position - 1, text[position]]), abs=2e-3)
            assert token.choice == int(expected[position - 1].argmax())
    assert min(token.log_prob for seen in found for token in seen) < -8
    llm.engine.check_integrity()


def test_all_probabilities_add_up_to_one(llm: LLM) -> None:
    seen = likelihoods(llm.engine, [Forced([5, 6, token], 2) for token in range(258)])
    total = sum(2.718281828459045**one.log_prob for (one,) in seen)
    assert total == pytest.approx(1, abs=1e-4)


def test_nothing_asked_is_nothing_said(llm: LLM) -> None:
    assert likelihoods(llm.engine, []) == []
    assert likelihoods(llm.engine, [Forced([5, 6], 2)]) == [[]]
