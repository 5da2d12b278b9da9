"""`verify` on the default model gives what exits off gives.

The native executor's sums do not depend on the number of rows, so nothing may differ. Torch's float32 kernels give
slightly different sums for different numbers of rows, so a near-tie may fall either way: there, a difference is allowed
only where the two best logits are less than 1e-3 apart, and is counted.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pytest

from offramp import LLM, ExitParams, SamplingParams
from offramp.types.output import Output
from tests.real.conftest import open_llm

NEAR_TIE = 1e-3
EXITS = ({20: 0.5}, {26: 0.5}, {20: 0.7, 26: 0.5}, {20: 0.0}, {26: 0.0})
DRAFTS = (1, 2, 4, 8)


def near_tie_at_first_difference(off: Output, verified: Output) -> bool | None:
    """None where the tokens are equal; else whether exits off had a near-tie at the first difference."""
    pairs = zip_longest(off.token_ids, verified.token_ids)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        return None
    assert off.logprobs is not None
    (_, best), (_, second) = off.logprobs[at][1:3]
    return abs(best - second) < NEAR_TIE


def requests(cases: list[dict[str, Any]], temperature: float) -> tuple[list[Any], list[SamplingParams], list[Any]]:
    """Prompts, how they are sampled, and every exit and draft length."""
    samplings = [
        SamplingParams(
            temperature=temperature,
            seed=i,
            max_tokens=24,
            top_p=0.95 if i % 2 else 1.0,
            repetition_penalty=1.1 if i % 3 else 1.0,
            stop=("the", ".") if i % 5 == 0 else (),
            stop_token_ids=(28,) if i % 5 == 1 else (),
            logprobs=2,
        )
        for i in range(len(cases))
    ]
    dials = [
        ExitParams(threshold=EXITS[i % len(EXITS)], kv="verify", max_draft=DRAFTS[i // len(EXITS)])
        for i in range(len(cases))
    ]
    return [c["prompt"] for c in cases], samplings, dials


@pytest.mark.parametrize(
    ("llm", "temperature"),
    [("native", 0.0), ("native", 0.8), ("torch", 0.8), pytest.param("torch", 0.0, marks=pytest.mark.full)],
    indirect=["llm"],
)
def test_lossless_equals_off_over_exits_and_draft_lengths(
    llm: LLM, cases: list[dict[str, Any]], temperature: float
) -> None:
    prompts, samplings, dials = requests(cases, temperature)
    off = llm.generate(prompts, samplings)
    verified = llm.generate(prompts, samplings, dials)
    differences = [near_tie_at_first_difference(a, b) for a, b in zip(off, verified, strict=True)]
    assert False not in differences
    assert differences.count(True) <= (2 if llm.inspect()["executor"] == "torch" else 0)
    assert all(a.text == b.text for a, b, d in zip(off, verified, differences, strict=True) if d is None)
    assert {o.finish_reason for o in off} >= {"length", "stop"}
    assert sum(o.report.drafts_accepted for o in verified) > 50


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_lossless_is_off_to_the_last_digit_on_the_native_executor(cases: list[dict[str, Any]], dtype: str) -> None:
    """Tokens and log-probabilities, greedy and sampled, alone and in a batch with others."""
    with open_llm(dtype=dtype) as llm:
        for temperature in (0.0, 0.8):
            prompts, samplings, dials = requests(cases, temperature)
            off = llm.generate(prompts, samplings)
            verified = llm.generate(prompts, samplings, dials)
            alone = [llm.generate([prompt], how)[0] for prompt, how in zip(prompts[:4], samplings, strict=False)]
            assert [o.token_ids for o in verified] == [o.token_ids for o in off]
            assert [o.logprobs for o in verified] == [o.logprobs for o in off]
            assert [(o.token_ids, o.logprobs) for o in alone] == [(o.token_ids, o.logprobs) for o in off[:4]]
            assert sum(o.report.drafts_accepted for o in verified) > 50
