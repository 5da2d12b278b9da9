"""Features against Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.errors import InvalidParameter
from offramp.models import load_model
from offramp.tune.features import Features
from offramp.tune.samples import Sample
from offramp.tune.workshop import Workshop
from tests.tune.toys import LAYERS, WORDS, quiet, toy_request

KINDS = ("native", "torch")


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def some_samples(count: int = 40, longest: int = 60) -> list[Sample]:
    pick = np.random.default_rng(0)
    lengths = pick.integers(2, longest, count)
    return [Sample(tuple(pick.choice(WORDS, n).tolist()), int(pick.integers(1, n))) for n in lengths]


def workshop(toy: Path, work: Path, executor: str = "native", update: Any = quiet) -> Workshop:
    return Workshop(load_model(str(toy)), toy_request(toy, work / "out", executor, work=work), update)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features").iterdir())}


def expected(model: Any, samples: list[Sample], layer: int) -> np.ndarray:
    """Hidden states [tokens, hidden_size] after `layer` layers, before the final norm."""
    found: dict[str, torch.Tensor] = {}
    hook = model.model.norm.register_forward_pre_hook(lambda _, args: found.update(top=args[0]))
    parts = []
    for s in samples:
        with torch.no_grad():
            states = model(torch.tensor([s.token_ids]), output_hidden_states=True).hidden_states
        parts.append((found["top"] if layer == LAYERS else states[layer])[0].numpy())
    hook.remove()
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_choices_and_sums_are_those_of_transformers(
    toy: tuple[Path, Any], tmp_path: Path, kind: str
) -> None:
    folder, model = toy
    samples = some_samples()
    features = workshop(folder, tmp_path, kind).features(samples, (2, 4))
    for layer, rows in {**features.layers, LAYERS: features.top}.items():
        np.testing.assert_allclose(rows.astype(np.float32), expected(model, samples, layer), rtol=2e-3, atol=2e-3)
    row = 0
    for s in samples:
        with torch.no_grad():
            logits = model(torch.tensor([s.token_ids])).logits[0]
        for p in range(len(s.token_ids)):
            if p in s.scored:
                assert features.choice[row] == int(logits[p].argmax())
                assert features.log_sum[row] == pytest.approx(float(logits[p].logsumexp(-1)), abs=2e-3)
            else:
                assert (features.choice[row], features.log_sum[row]) == (-1, 0)
            row += 1
    assert row == len(features.choice)


def test_a_sequence_longer_than_a_call_is_run_in_chunks(
    toy: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp.tune.trunk.ROWS", 16)
    samples = some_samples(count=6)
    rows = workshop(toy[0], tmp_path).features(samples, (3,)).layers[3]
    np.testing.assert_allclose(rows.astype(np.float32), expected(toy[1], samples, 3), rtol=2e-3, atol=2e-3)


def test_an_interrupted_run_goes_on_to_the_identical_files(toy: tuple[Path, Any], tmp_path: Path) -> None:
    samples = some_samples(count=200)

    def interrupt(done: int, total: int, text: str) -> None:
        if done > total // 2:
            raise Interrupted

    workshop(toy[0], tmp_path / "whole").features(samples, (2, 4))
    with pytest.raises(Interrupted):
        workshop(toy[0], tmp_path / "cut", update=interrupt).features(samples, (2, 4))
    with (tmp_path / "cut" / "features" / "top.f16").open("ab") as file:
        file.write(b"half a row")
    before = files(tmp_path / "cut")
    workshop(toy[0], tmp_path / "cut").features(samples, (2, 4))
    assert before != files(tmp_path / "cut") == files(tmp_path / "whole")


def same(a: Features, b: Features) -> bool:
    layers = all(np.array_equal(a.layers[e], b.layers[e]) for e in b.layers)
    return layers and np.array_equal(a.top, b.top) and np.array_equal(a.log_sum, b.log_sum)


def test_more_layers_and_more_samples_are_added_to_what_there_is(toy: tuple[Path, Any], tmp_path: Path) -> None:
    samples = some_samples(count=60)
    grown = workshop(toy[0], tmp_path / "grown")
    grown.features(samples[:20], (2,))
    grown.features(samples[:40], (4,))
    fresh = workshop(toy[0], tmp_path / "fresh")
    assert same(grown.features(samples, (2, 4)), fresh.features(samples, (2, 4)))
    assert same(grown.features(samples[:10], (4,)), workshop(toy[0], tmp_path / "few").features(samples[:10], (4,)))


def test_features_of_other_data_are_refused(toy: tuple[Path, Any], tmp_path: Path) -> None:
    samples = some_samples()
    workshop(toy[0], tmp_path).features(samples, (2,))
    with pytest.raises(InvalidParameter, match="holds features of other data"):
        workshop(toy[0], tmp_path).features(samples[::-1], (2,))


def test_features_of_another_executor_are_refused(toy: tuple[Path, Any], tmp_path: Path) -> None:
    workshop(toy[0], tmp_path).features(some_samples(), (2,))
    with pytest.raises(InvalidParameter, match="was made with `executor` 'native', and now it is 'torch'"):
        workshop(toy[0], tmp_path, "torch").features(some_samples(), (2,))
