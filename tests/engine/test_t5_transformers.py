"""The engine over the torch executor against Transformers' T5: greedy tokens of ragged batches, with exits and without,
and what leaves at any layer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.request import Request
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.driver import check_all_free
from tests.engine.toy_engine import Run
from tests.executors.t5_toys import VARIANTS, T5Toy, make_t5_toy
from tests.executors.toys import random_prompts

SOURCES = random_prompts((23, 1, 31, 9, 16), seed=3)
COUNT = 10


@pytest.fixture(scope="module", params=VARIANTS)
def t5(request: pytest.FixtureRequest) -> T5Toy:
    return make_t5_toy(request.param)


def run(toy: T5Toy, exit: ExitParams | None, dtype: str = "float64") -> Run:
    """All sources in one engine whose stores hold two or three of them."""
    depth = toy.spec.num_layers
    executor = toy.executor(exits=range(1, depth), block_size=4, num_blocks=8, num_source_blocks=14, dtype=dtype)
    engine = Engine(executor, EngineConfig(profitability=False, max_num_seqs=4, max_num_batched_tokens=24))
    sampling = SamplingParams(max_tokens=COUNT, ignore_eos=True)
    result = Run(engine, [Request((), sampling, exit, source=source) for source in SOURCES])
    check_all_free(engine)
    return result


def greedy(toy: T5Toy, source: Sequence[int]) -> list[int]:
    """Transformers' own greedy search."""
    ids = torch.tensor([list(source)])
    length = {"max_new_tokens": COUNT, "min_new_tokens": COUNT}
    made = toy.model.generate(ids, do_sample=False, num_beams=1, use_cache=False, eos_token_id=None, **length)
    return [int(token) for token in made[0, 1:]]


def test_with_exits_off_and_under_verify_tokens_are_those_of_generate(t5: T5Toy) -> None:
    expected = [greedy(t5, source) for source in SOURCES]
    off = run(t5, None)
    assert [off.tokens(n) for n in range(len(SOURCES))] == expected
    for layer in range(1, t5.spec.num_layers):
        drafted = run(t5, ExitParams("fixed", 1.0, kv="verify", max_draft=3, options={"layer": layer}))
        assert [drafted.tokens(n) for n in range(len(SOURCES))] == expected


def test_under_recompute_a_token_that_leaves_at_a_layer_is_the_likeliest_there(t5: T5Toy) -> None:
    start = t5.spec.decoder_start_token_id
    for layer in range(1, t5.spec.num_layers):
        early = run(t5, ExitParams("fixed", 1.0, kv="recompute", recompute_cap=4, options={"layer": layer}))
        for number, source in enumerate(SOURCES):
            tokens, layers = [start, *early.tokens(number)], early.exit_layers(number)
            assert set(layers) == {layer, t5.spec.num_layers}
            likeliest = {at: t5.log_probs(source, tokens[:-1], at).argmax(-1).tolist() for at in set(layers)}
            assert tokens[1:] == [likeliest[at][i] for i, at in enumerate(layers)]


def test_in_float32_every_token_is_as_good_as_the_likeliest() -> None:
    toy = make_t5_toy("1.1", dtype=torch.float32)
    off = run(toy, None, "float32")
    for number, source in enumerate(SOURCES):
        tokens = [toy.spec.decoder_start_token_id, *off.tokens(number)]
        told = toy.log_probs(source, tokens[:-1], toy.spec.num_layers)
        chosen = told.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        torch.testing.assert_close(chosen, told.max(-1).values, rtol=0, atol=1e-4)
