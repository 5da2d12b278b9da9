"""Exit heads and features against an obvious NumPy computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from offramp.errors import PackError
from offramp.exits.pack import Base, ExitPack, ExitSpec
from offramp.types.executor import Feature
from offramp.types.sampling import SamplingParams
from tests.executors.toys import VOCAB, AnyToy, make_pack, make_toy, score_hidden, softmax

REDUCED = tuple(range(0, VOCAB, 3))
ALL_LOGPROBS = SamplingParams(logprobs=VOCAB)


def rms(h: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.asarray(weight * h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-6))


def silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / (1 + np.exp(-x)))


def states(toy: AnyToy, rows: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0, 1, (rows, toy.spec.hidden_size)))


def expected_logits(toy: AnyToy, pack: ExitPack, spec: ExitSpec, h: np.ndarray) -> np.ndarray:
    def get(name: str) -> np.ndarray:
        return pack.tensor(spec.layer, name)

    if spec.adapter == "linear":
        h = h + h @ get("adapter.weight").T + get("adapter.bias")
    if spec.adapter == "mlp":
        x = rms(h, get("adapter.norm.weight"))
        gated = silu(x @ get("adapter.gate_proj.weight").T) * (x @ get("adapter.up_proj.weight").T)
        h = h + gated @ get("adapter.down_proj.weight").T
    norms = {"own": lambda: rms(h, get("norm.weight")), "none": lambda: h}
    x = norms.get(spec.norm, lambda: rms(h, toy.source.arrays[toy.spec.final_norm]))()
    ids = list(REDUCED) if spec.vocabulary else list(range(VOCAB))
    if spec.head == "own":
        matrix = get("head.weight")
    else:
        x, matrix = x * toy.spec.head_scale, toy.source.arrays[toy.spec.lm_head][ids]
    logits = x @ matrix.T
    if spec.other:
        logits = np.concatenate([logits, x @ get("other.weight").T + get("other.bias")], -1)
    return np.asarray(logits / spec.temperature)


HEADS: list[dict[str, Any]] = [
    {},
    {"norm": "own"},
    {"norm": "none"},
    {"adapter": "linear"},
    {"adapter": "mlp", "norm": "own"},
    {"head": "own"},
    {"temperature": 1.7},
    {"vocabulary": "frequent"},
    {"vocabulary": "frequent", "head": "own"},
    {"vocabulary": "frequent", "other": True, "temperature": 0.7},
    {"vocabulary": "frequent", "head": "own", "other": True, "adapter": "linear", "norm": "own"},
]


@pytest.mark.parametrize("fields", HEADS)
def test_log_probabilities_of_every_kind_of_head(toy: AnyToy, fields: dict[str, Any]) -> None:
    spec = ExitSpec(layer=2, **fields)
    pack = make_pack(toy, spec, REDUCED if spec.vocabulary else None)
    hidden = states(toy)
    logits = expected_logits(toy, pack, spec, hidden.numpy())
    ids = REDUCED if spec.vocabulary else range(VOCAB)
    for row, scored in enumerate(score_hidden(toy.executor(pack), 1, hidden, ALL_LOGPROBS)):
        log_probs = np.log(softmax(logits[row]))
        winner = int(logits[row].argmax())
        if winner == len(ids):
            assert (scored.token, scored.logprobs) == (None, None)
            continue
        assert scored.token == ids[winner]
        assert scored.logprobs is not None
        assert dict(scored.logprobs) == pytest.approx(dict(zip(ids, log_probs, strict=False)), abs=toy.tolerance(1e-9))


def test_each_feature_against_its_formula(toy: AnyToy) -> None:
    needs: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy"})
    hidden = states(toy)
    pack = make_pack(toy, ExitSpec(2, head="own"))
    probs = softmax(expected_logits(toy, pack, pack.exits[0], hidden.numpy()))
    for row, scored in enumerate(score_hidden(toy.executor(pack), 1, hidden, needs=needs)):
        ordered = np.sort(probs[row])[::-1]
        assert scored.features == toy.approx(
            {
                "max_prob": ordered[0],
                "margin": ordered[0] - ordered[1],
                "entropy": -(ordered * np.log(ordered)).sum() / math.log(VOCAB),
            }
        )


def test_features_with_other_count_it_as_an_outcome(toy: AnyToy) -> None:
    pack = make_pack(toy, ExitSpec(2, vocabulary="frequent", other=True), REDUCED)
    hidden = states(toy, rows=40)
    probs = softmax(expected_logits(toy, pack, pack.exits[0], hidden.numpy()))
    scored = score_hidden(toy.executor(pack), 1, hidden, needs=frozenset({"max_prob", "margin", "entropy"}))
    silent = [s.token is None for s in scored]
    assert silent == [bool(p.argmax() == len(REDUCED)) for p in probs]
    assert 0 < sum(silent) < len(silent)
    for p, s in zip(probs, scored, strict=True):
        ordered, entropy = np.sort(p)[::-1], -(p * np.log(p)).sum() / math.log(len(REDUCED) + 1)
        spoken = {"max_prob": ordered[0], "margin": ordered[0] - ordered[1], "entropy": entropy}
        assert s.features == toy.approx(spoken if s.token is not None else {"max_prob": 0, "margin": 0, "entropy": 1})


def test_saturation_is_the_cosine_with_the_previous_boundary_cut_at_zero(toy: AnyToy) -> None:
    executor, first = toy.executor(exits=(1, 2)), states(toy, rows=8)
    score_hidden(executor, 1, first)
    second = states(toy, rows=8, seed=2)
    a, b = first.numpy(), second.numpy()
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    scored = score_hidden(executor, 2, second, needs=frozenset({"saturation"}))
    assert [s.features["saturation"] for s in scored] == toy.approx(np.maximum(0, cosines).tolist())
    assert (cosines < 0).any()


def test_saturation_is_absent_at_the_first_exit(toy: AnyToy) -> None:
    executor = toy.executor()
    assert score_hidden(executor, 1, states(toy, 1), needs=frozenset({"saturation"}))[0].features == {}
    assert "saturation" not in executor.features_at(1)


@pytest.mark.parametrize("norm", ["shared", "own", "none"])
@pytest.mark.parametrize("classifier", ["linear", "mlp"])
def test_the_classifier_reads_the_normed_hidden_state(toy: AnyToy, classifier: str, norm: str) -> None:
    spec = ExitSpec(2, norm=norm, classifier=classifier, adapter="linear")  # type: ignore[arg-type]
    pack, hidden = make_pack(toy, spec), states(toy)
    shared = toy.source.arrays[toy.spec.final_norm]
    weights = {"shared": shared, "own": pack.tensor(2, "norm.weight")}
    h = hidden.numpy()
    x = h if norm == "none" else rms(h, weights[norm])
    if classifier == "linear":
        logit = x @ pack.tensor(2, "classifier.weight").T + pack.tensor(2, "classifier.bias")
    else:
        low = silu(x @ pack.tensor(2, "classifier.down.weight").T + pack.tensor(2, "classifier.down.bias"))
        logit = low @ pack.tensor(2, "classifier.up.weight").T + pack.tensor(2, "classifier.up.bias")
    scored = score_hidden(toy.executor(pack), 1, hidden, needs=frozenset({"classifier"}), choose=False)
    assert [s.features["classifier"] for s in scored] == toy.approx((1 / (1 + np.exp(-logit[:, 0]))).tolist())


def test_only_hidden_features_and_no_choice_evaluate_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy()
    executor = toy.executor(make_pack(toy, ExitSpec(2, classifier="linear")))

    def refuse(*_: object) -> None:
        raise AssertionError("the head was evaluated")

    monkeypatch.setattr("offramp.executors.torch.heads.HeadModule.logits", refuse)
    needs: frozenset[Feature] = frozenset({"classifier"})
    assert score_hidden(executor, 1, states(toy, 1), needs=needs, choose=False)[0].token is None
    with pytest.raises(AssertionError):
        score_hidden(executor, 1, states(toy, 1), needs=needs)


def test_token_features_without_a_choice(toy: AnyToy) -> None:
    scored = score_hidden(toy.executor(), 1, states(toy, 1), needs=frozenset({"max_prob"}), choose=False)[0]
    assert scored.token is None
    assert 0 < scored.features["max_prob"] < 1


def test_features_listed_are_those_an_exit_has(toy: AnyToy) -> None:
    executor = toy.executor(make_pack(toy, ExitSpec(2, classifier="mlp")))
    assert executor.features_at(1) == {"max_prob", "margin", "entropy", "classifier"}
    assert toy.executor((1, 2)).features_at(2) == {"max_prob", "margin", "entropy", "saturation"}


def test_asking_for_a_classifier_that_is_not_there_is_refused(toy: AnyToy) -> None:
    with pytest.raises(PackError) as error:
        score_hidden(toy.executor(), 1, states(toy, 1), needs=frozenset({"classifier"}))
    assert error.value.message == "`classifier` was asked for at an exit that has none"


def test_a_pack_for_a_model_of_another_size_is_refused(toy: AnyToy) -> None:
    with pytest.raises(PackError) as error:
        toy.executor(ExitPack("x", Base(4, 64, VOCAB, model="big"), (ExitSpec(1),)))
    assert error.value.message == "the exit pack is for a model with `hidden_size` 64, and this model has 32"
    assert error.value.hint == "use `big`, or a pack made for this model"
