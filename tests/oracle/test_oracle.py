"""The oracle checked against itself, against other ways of writing the same thing, and against Transformers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.generate import generate
from tests.oracle.lockstep import Asked, lockstep
from tests.oracle.model import Array, OracleModel
from tests.oracle.run import Result
from tests.oracle.sampling import adjust
from tests.oracle.scoring import threshold
from tests.toy import toy_pack, toy_spec, toy_weights

CASES = range(16)
CRITERIA: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("max_prob", 0.25, {}),
    ("margin", 0.1, {}),
    ("entropy", 0.3, {}),
    ("saturation", 0.9, {}),
    ("classifier", 0.6, {}),
    ("patience", 1.0, {"exits": 1}),
    ("fixed", 1.0, {"layer": 3}),
    ("never", 0.0, {}),
)


def toy_model(case: int) -> OracleModel:
    spec = toy_spec()
    return OracleModel(spec, toy_weights(spec, case % 3), toy_pack(spec, case % 3))


def prompt_of(case: int) -> list[int]:
    rng = np.random.default_rng(case)
    return [int(token) for token in rng.integers(1, 48, rng.integers(2, 8))]


def sampling_of(case: int) -> SamplingParams:
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 8, "min_p": 0.05, "repetition_penalty": 1.3},
        {"presence_penalty": 0.7, "frequency_penalty": 0.4, "logit_bias": {5: 1.5, 40: -3.0}},
    )
    return SamplingParams(max_tokens=16, seed=case, ignore_eos=case % 2 == 0, **kinds[case % len(kinds)])


def exit_of(case: int, **changes: Any) -> ExitParams:
    name, threshold, options = CRITERIA[case % len(CRITERIA)]
    return replace(ExitParams(name, threshold, options=options), **changes)


def full_pass(model: OracleModel, tokens: list[int]) -> tuple[Array, Array, Array]:
    """Hidden states at the top, K and V of one pass over all the tokens at once."""
    positions = list(range(len(tokens)))
    hidden = model.embed(tokens)
    keys, values = np.full((2, model.num_layers, len(tokens), *model.kv_shape), np.nan)
    for layer in range(model.num_layers):
        hidden = model.run(layer, hidden, positions, keys[layer], values[layer])
    return hidden, keys, values


def tokens_with_kv(prompt: list[int], result: Result) -> list[int]:
    return (prompt + result.tokens)[: result.keys.shape[1]]


def distance_where_written(result: Result, keys: Array, values: Array) -> float:
    difference = np.abs(np.stack([result.keys - keys, result.values - values]))
    assert np.isfinite(difference).any(), "nothing was written"
    return float(np.nanmax(difference))


def test_the_model_is_a_llama() -> None:
    spec = toy_spec()
    weights = toy_weights(spec)
    config = LlamaConfig(
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        vocab_size=spec.vocab_size,
        rms_norm_eps=spec.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope.theta},
        tie_word_embeddings=False,
    )
    reference = LlamaForCausalLM(config).double().eval()
    reference.load_state_dict({name: torch.tensor(array).double() for name, array in weights.items()})
    tokens = [7, 3, 11, 40, 3, 9]
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    model = OracleModel(spec, weights, toy_pack(spec))
    hidden, _, _ = full_pass(model, tokens)
    np.testing.assert_allclose([model.top_logits(h) for h in hidden], expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_exits_off_is_one_full_pass_per_token(case: int) -> None:
    model, prompt = toy_model(case), prompt_of(case)
    sampling = SamplingParams(max_tokens=16, ignore_eos=True, seed=0)
    tokens = list(prompt)
    while len(tokens) < len(prompt) + 16:
        hidden, _, _ = full_pass(model, tokens)
        tokens.append(int(np.argmax(model.top_logits(hidden[-1]))))
    assert generate(model, prompt, sampling).tokens == tokens[len(prompt) :]


@pytest.mark.parametrize("case", CASES)
def test_verify_gives_what_exits_off_gives(case: int) -> None:
    model, prompt, sampling = toy_model(case), prompt_of(case), sampling_of(case)
    off = generate(model, prompt, sampling)
    on = generate(
        model, prompt, sampling, exit_of(case, kv="verify", max_draft=1 + case % 5, draft_threshold=case % 3 / 5)
    )
    assert (on.tokens, on.finish_reason) == (off.tokens, off.finish_reason)
    _, keys, values = full_pass(model, tokens_with_kv(prompt, on))
    assert distance_where_written(on, keys, values) < 1e-9


@pytest.mark.parametrize("case", CASES)
def test_recomputed_kv_is_that_of_one_full_pass(case: int) -> None:
    model, prompt = toy_model(case), prompt_of(case)
    result = generate(model, prompt, sampling_of(case), exit_of(case, kv="recompute", recompute_cap=1 + case % 6))
    _, keys, values = full_pass(model, tokens_with_kv(prompt, result))
    assert distance_where_written(result, keys, values) < 1e-9
    assert not result.filled.any()


@pytest.mark.parametrize("case", CASES)
def test_filled_kv_is_that_of_a_layer_by_layer_pass_in_which_exited_tokens_stand_still(case: int) -> None:
    model, prompt = toy_model(case), prompt_of(case)
    result = generate(model, prompt, sampling_of(case), exit_of(case))
    tokens = tokens_with_kv(prompt, result)
    depth = [model.num_layers] * (len(prompt) - 1) + result.exit_layers
    hidden = model.embed(tokens)
    keys, values = np.full((2, model.num_layers, len(tokens), *model.kv_shape), np.nan)
    for layer in range(model.num_layers):
        still = [p for p in range(len(tokens)) if depth[p] <= layer]
        moving = [p for p in range(len(tokens)) if depth[p] > layer]
        keys[layer][still], values[layer][still] = model.key_value(layer, hidden[still], still)
        hidden[moving] = model.run(layer, hidden[moving], moving, keys[layer], values[layer])
    assert distance_where_written(result, keys, values) < 1e-9


@pytest.mark.parametrize("case", CASES)
def test_it_makes_no_difference_when_kv_is_filled(case: int) -> None:
    model, prompt, sampling = toy_model(case), prompt_of(case), sampling_of(case)
    lazy = generate(model, prompt, sampling, exit_of(case, fill_when="lazy"))
    early = generate(model, prompt, sampling, exit_of(case, fill_when="iteration"))
    assert (lazy.tokens, lazy.exit_layers) == (early.tokens, early.exit_layers)
    assert sum(lazy.layers_filled) <= sum(early.layers_filled)


@pytest.mark.parametrize("case", CASES)
def test_a_lone_request_in_lockstep_is_the_request_alone(case: int) -> None:
    model, prompt, sampling = toy_model(case), prompt_of(case), sampling_of(case)
    alone = generate(model, prompt, sampling, exit_of(case))
    [together] = lockstep(model, [Asked(prompt, sampling, exit_of(case))])
    assert (together.tokens, together.exit_layers) == (alone.tokens, alone.exit_layers)


def test_in_lockstep_a_row_with_exits_off_forces_full_depth() -> None:
    model, sampling = toy_model(0), SamplingParams(max_tokens=8, ignore_eos=True, seed=0)
    eager = ExitParams(threshold=0.0)
    rows = lockstep(model, [Asked([3, 4], sampling, eager), Asked([5, 6], replace(sampling, max_tokens=4))])
    full = model.num_layers
    assert rows[0].exit_layers[:4] == [full] * 4
    assert all(layer < full for layer in rows[0].exit_layers[4:])


def test_in_lockstep_all_rows_leave_at_one_layer() -> None:
    model, sampling = toy_model(1), SamplingParams(max_tokens=12, ignore_eos=True, seed=0)
    rows = lockstep(model, [Asked(prompt_of(c), sampling, ExitParams(threshold=0.2)) for c in range(3)])
    assert rows[0].exit_layers == rows[1].exit_layers == rows[2].exit_layers
    assert len(set(rows[0].exit_layers)) > 1


@pytest.mark.parametrize("case", CASES)
def test_replaying_a_run_repeats_it(case: int) -> None:
    model, prompt, sampling = toy_model(case), prompt_of(case), sampling_of(case)
    first = generate(model, prompt, sampling, exit_of(case))
    trace = {"exit_layers": first.exit_layers}
    again = generate(model, prompt, sampling, ExitParams("replay", 1.0, options=trace))
    assert (again.tokens, again.exit_layers) == (first.tokens, first.exit_layers)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kv", ["fill", "recompute", "verify"])
def test_layers_run_filled_and_skipped_add_up_to_the_depth(case: int, kv: str) -> None:
    model = toy_model(case)
    result = generate(model, prompt_of(case), sampling_of(case), exit_of(case, kv=kv))
    parts = zip(result.layers_run, result.layers_filled, result.layers_skipped, strict=True)
    assert all(run + filled + skipped == model.num_layers and skipped >= 0 for run, filled, skipped in parts)
    assert len(result.layers_run) == len(result.tokens)


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_recompute_runs_to_the_top_after_as_many_exits_as_its_cap(cap: int) -> None:
    model, sampling = toy_model(0), SamplingParams(max_tokens=14, ignore_eos=True, seed=0)
    exit = ExitParams("fixed", 1.0, kv="recompute", recompute_cap=cap, options={"layer": 2})
    full = model.num_layers
    expected = [full, *([2] * cap + [full]) * 14][:14]
    assert generate(model, [3, 4, 5], sampling, exit).exit_layers == expected


def test_every_criterion_but_never_leaves_early_and_not_always() -> None:
    sampling = SamplingParams(max_tokens=30, ignore_eos=True, seed=0)
    for case, (name, _, _) in enumerate(CRITERIA):
        runs = [generate(toy_model(seed), [3, 4], sampling, exit_of(case)) for seed in range(3)]
        layers = {layer for run in runs for layer in run.exit_layers}
        assert 6 in layers
        assert (len(layers) > 1) == (name != "never"), name


def test_saturation_never_leaves_at_the_first_exit() -> None:
    sampling = SamplingParams(max_tokens=8, ignore_eos=True, seed=0)
    result = generate(toy_model(0), [3, 4], sampling, ExitParams("saturation", 0.0))
    assert set(result.exit_layers[1:]) <= {3, 4}


def test_exits_below_the_minimum_or_without_a_threshold_are_not_taken() -> None:
    sampling = SamplingParams(max_tokens=8, ignore_eos=True, seed=0)
    above = generate(toy_model(0), [3, 4], sampling, ExitParams(threshold=0.0, min_layer=4))
    only = generate(toy_model(0), [3, 4], sampling, ExitParams(threshold={2: 0.0}))
    assert (above.exit_layers[1:], only.exit_layers[1:]) == ([4] * 7, [2] * 7)


def test_a_positive_bias_outside_the_reduced_vocabulary_closes_its_exit() -> None:
    sampling = SamplingParams(max_tokens=8, ignore_eos=True, seed=0, logit_bias={47: 0.5})
    result = generate(toy_model(0), [3, 4], sampling, ExitParams(threshold=0.0, min_layer=3))
    assert set(result.exit_layers[1:]) == {4}


def test_penalties_follow_their_definitions() -> None:
    sampling = SamplingParams(logit_bias={0: 1.0}, repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.5)
    out = adjust(np.array([1.0, -1.0, 4.0, 4.0, 7.0]), sampling, prompt=[1, 2], output=[2, 2, 0], banned={4})
    assert out.tolist() == [0.25, -2.0, 0.75, 4.0, -np.inf]


def test_end_ids_are_banned_before_the_minimum_and_end_the_output_after_it() -> None:
    model = toy_model(0)
    free = generate(model, [3, 4], SamplingParams(max_tokens=20, ignore_eos=True, seed=0)).tokens
    stop = free[5]
    ended = generate(model, [3, 4], SamplingParams(max_tokens=20, ignore_eos=True, seed=0, stop_token_ids=(stop,)))
    first = free.index(stop)
    assert (ended.tokens, ended.finish_reason) == (free[: first + 1], "stop")
    longer = generate(
        model, [3, 4], SamplingParams(max_tokens=20, min_tokens=20, ignore_eos=True, seed=0, stop_token_ids=(stop,))
    )
    assert stop not in longer.tokens and longer.finish_reason == "length"


def test_a_decaying_threshold_follows_its_definition() -> None:
    exit = ExitParams(threshold={2: 0.5, 4: 1.0}, decay=4.0)
    assert threshold(exit, 2, index=5, max_tokens=20) == pytest.approx(0.45 + 0.1 * math.exp(-1))
    assert threshold(exit, 4, index=0, max_tokens=20) == 1.0
    assert threshold(exit, 3, index=0, max_tokens=20) is None
