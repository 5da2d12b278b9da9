"""The default model against Transformers: logits, and greedy tokens alone and in mixed batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offramp import LLM, ExitParams, SamplingParams
from offramp.engine.blocks import Lease
from offramp.types.executor import ScoreRow, SeqRows
from scripts import reference

GREEDY = SamplingParams(max_tokens=64, ignore_eos=True)
FOLLOWED = 16


@pytest.fixture(scope="module")
def live(cases: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Logits [positions, vocab_size] of full forwards: the first prompts, each with the tokens it goes on with."""
    model, _ = reference.load()
    with torch.no_grad():
        return [model(torch.tensor([[*c["prompt"], *c["tokens"][:FOLLOWED]]])).logits[0] for c in cases[:4]]


def test_greedy_tokens_in_one_mixed_batch(llm: LLM, cases: list[dict[str, Any]]) -> None:
    outputs = llm.generate([c["prompt"] for c in cases], GREEDY)
    assert [list(o.token_ids) for o in outputs] == [c["tokens"] for c in cases]


def test_greedy_tokens_beside_rows_that_exit(llm: LLM, cases: list[dict[str, Any]]) -> None:
    early = ExitParams(threshold=0.8)
    dials = ["off" if i % 2 else early for i in range(len(cases))]
    outputs = llm.generate([c["prompt"] for c in cases], GREEDY, dials)
    off = [(list(o.token_ids), c["tokens"]) for o, c, d in zip(outputs, cases, dials, strict=True) if d == "off"]
    assert all(ours == theirs for ours, theirs in off) and len(off) == 10
    assert any(20 in o.exit_layers for o in outputs)


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.full if c % 4 else ()) for c in range(20)])
def test_greedy_tokens_alone(llm: LLM, cases: list[dict[str, Any]], case: int) -> None:
    output = llm.generate([cases[case]["prompt"]], GREEDY)[0]
    assert list(output.token_ids) == cases[case]["tokens"]


def test_the_tokenizer_gives_the_same_ids(llm: LLM, cases: list[dict[str, Any]]) -> None:
    assert [llm.tokenizer.encode(c["text"]) for c in cases] == [c["prompt"] for c in cases]


def test_logits_after_every_prompt(llm: LLM, cases: list[dict[str, Any]]) -> None:
    """Up to what softmax takes off all of them."""
    executor, sampling = llm.engine.executor, SamplingParams(logprobs=20)
    top = executor.shape.num_segments
    for case in cases:
        lease = Lease(llm.engine.pool)
        lease.grow(len(case["prompt"]), 0)
        rows = [SeqRows(range(len(case["prompt"])), case["prompt"], lease.blocks)]
        for segment in range(top):
            executor.run_segment(segment, rows)
        last = ScoreRow(len(case["prompt"]) - 1, lease.blocks, sampling, seed=0)
        (scored,) = executor.score(top, [last], frozenset())
        lease.close()
        assert scored.logprobs is not None
        ours, theirs = dict(scored.logprobs), dict(zip(case["top_ids"], case["top_logits"], strict=True))
        shift = ours[case["top_ids"][0]] - case["top_logits"][0]
        assert {t: ours[t] - shift for t in theirs} == pytest.approx(theirs, abs=1e-4)


def test_log_probabilities_match_a_live_full_forward(
    llm: LLM, cases: list[dict[str, Any]], live: list[torch.Tensor]
) -> None:
    sampling = SamplingParams(max_tokens=FOLLOWED + 1, ignore_eos=True, logprobs=20)
    for case, logits in zip(cases, live, strict=False):
        assert logits[len(case["prompt"]) - 1].topk(8).indices.tolist() == case["top_ids"]
        expected = logits.log_softmax(-1)
        output = llm.generate([case["prompt"]], sampling)[0]
        assert output.logprobs is not None
        for i, row in enumerate(output.logprobs):
            position = len(case["prompt"]) - 1 + i
            for token, log_prob in row:
                assert log_prob == pytest.approx(expected[position, token].item(), abs=1e-4)
