"""`verify` gives the tokens of exits off: every exit x draft length 1-8 x batch 1-16, greedy and sampled, on every
executor, and on an encoder-decoder.

Prefix caching, preemption and chunked prefill are forced on: prompts share a prefix, the store holds little more than
the longest request, and a step takes one row per sequence.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest

from offramp.engine.accounting import report
from offramp.engine.request import Request
from offramp.types.exits import ExitParams
from tests.engine.toy_engine import SPEC, Chosen, Run, make_engine, request

pytestmark = pytest.mark.usefixtures("each_model")

LAYERS = range(1, SPEC.num_layers)
CHOICES: list[dict[int, float]] = [*({layer: 0.3} for layer in LAYERS), {2: 0.5, 4: 0.4, 6: 0.3}, {2: 0.0}]
BATCHES = range(1, 17)
DRAFTS = range(1, 9)
TEMPERATURES = (0.0, 0.9)
ALL = list(product(range(len(CHOICES)), DRAFTS, BATCHES, TEMPERATURES))
COMMON = tuple(range(1, 9))


def make_request(i: int, temperature: float, exit: ExitParams | None) -> Request:
    """Prompts share eight tokens; penalties, truncation and stops vary."""
    return request(
        (*COMMON, 10 + i, 20 + i % 3),
        exit,
        max_tokens=10 + i % 4,
        temperature=temperature,
        seed=i,
        top_p=0.9 if i % 2 else 1.0,
        repetition_penalty=1.2 if i % 3 == 0 else 1.0,
        frequency_penalty=0.5 if i % 3 == 1 else 0.0,
        stop_token_ids=(17, 18, 19) if i % 4 == 0 else (),
    )


@cache
def exits_off(kind: str, i: int, temperature: float) -> list[int]:
    """The tokens of a request alone, at full depth, with nothing forced."""
    return Run(make_engine(), [make_request(i, temperature, None)]).tokens()


def check(choice: int, max_draft: int, batch: int, temperature: float) -> tuple[int, int, int]:
    exit = ExitParams(threshold=CHOICES[choice], kv="verify", max_draft=max_draft)
    engine = make_engine(
        exits=list(CHOICES[choice]),
        block_size=2,
        num_blocks=13,
        max_num_seqs=4,
        max_num_batched_tokens=4,
        batching=("compact", "depth")[batch % 2],
    )
    run = Run(engine, [make_request(i, temperature, exit) for i in range(batch)])
    for (number,) in run.numbers:
        assert run.tokens(number) == exits_off(Chosen.kind, number, temperature)
    told = [report(engine.sequences[n]) for n in range(batch)]
    cached = sum(engine.sequences[n].cached_prompt_tokens for n in range(batch))
    return sum(t.drafts_accepted for t in told), sum(len(p.preempt) for p in run.plans), cached


@pytest.mark.parametrize("choice", range(len(CHOICES)), ids=str)
def test_verify_equals_exits_off(choice: int) -> None:
    """A part of the product in which every exit, draft length, batch size and temperature occurs."""
    cases = [(choice, d, b, t) for i, (c, d, b, t) in enumerate(ALL) if c == choice and i % 27 == choice]
    assert {c[1] for c in cases} == set(DRAFTS) and len({c[2] for c in cases}) > 8 and {c[3] for c in cases} == {0, 0.9}
    done = [check(*case) for case in cases]
    accepted, preempted, cached = (sum(column) for column in zip(*done, strict=True))
    assert accepted and preempted and cached


@pytest.mark.full
@pytest.mark.parametrize(("choice", "max_draft"), list(product(range(len(CHOICES)), DRAFTS)))
def test_verify_equals_exits_off_in_every_case(choice: int, max_draft: int) -> None:
    for batch, temperature in product(BATCHES, TEMPERATURES):
        check(choice, max_draft, batch, temperature)


def test_drafts_go_on_while_all_that_wait_are_likely_right_together() -> None:
    exit = ExitParams(threshold=0.0, draft_threshold=0.25, kv="verify", max_draft=8)
    assert exit.draft_floor([]) == 0.25 and exit.draft_floor([0.5, 0.5]) == 1.0
    assert exit.draft_floor([0.0]) > 1 and ExitParams(kv="verify").draft_floor([0.1]) == 0.0
    proposed = []
    for together in (0.0, 0.25, 1.0):
        engine = make_engine()
        Run(engine, [request(exit=replace(exit, draft_threshold=together), max_tokens=40)])
        proposed.append(report(engine.sequences[0]).drafts_proposed)
    assert proposed[0] > proposed[1] > proposed[2]
