"""The trunk in training against Transformers, and its parts against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.executors.torch.layers import Rotation, rms_norm
from offramp.tune.autograd import adapted, norm, rotate
from offramp.tune.dense import DenseTrunk
from offramp.tune.lora import new_factors
from tests.executors.toys import FAMILIES, VOCAB, ArraySource, Toy, make_toy

LAYERS = (1, 2, 3)


def some_ids(sequences: int = 3, tokens: int = 20) -> Tensor:
    return torch.tensor(np.random.default_rng(0).integers(0, VOCAB, (sequences, tokens)))


def dense(toy: Toy, factors: dict[str, Tensor] | None = None, dtype: torch.dtype = torch.float32) -> DenseTrunk:
    return DenseTrunk(toy.spec, toy.source, factors or {}, dtype)


def random_factors(toy: Toy, rank: int = 3) -> dict[str, Tensor]:
    factors = new_factors(toy.source.shapes(), toy.spec.num_layers, rank, seed=0)
    random = torch.Generator().manual_seed(1)
    for name, factor in factors.items():
        if name.endswith("lora_b"):
            factor.detach().normal_(std=0.2, generator=random)
    return factors


@pytest.fixture(scope="module", params=FAMILIES)
def toy(request: pytest.FixtureRequest) -> Toy:
    return make_toy(request.param, dtype=torch.float32)


@pytest.mark.parametrize("short", [0, 256])
def test_hidden_states_are_those_of_transformers(toy: Toy, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.tune.dense.SHORT", short)
    ids = some_ids()
    with torch.no_grad():
        expected = toy.model(ids, output_hidden_states=True).hidden_states
    for layer, hidden in zip(LAYERS, dense(toy).run(ids, LAYERS), strict=True):
        torch.testing.assert_close(hidden, expected[layer], rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close(toy: Toy) -> None:
    exact = dense(toy).run(some_ids(), (4,))[0]
    rough = dense(toy, dtype=torch.bfloat16).run(some_ids(), (4,))[0]
    assert float((exact - rough).norm() / exact.norm()) < 0.05


def test_factors_are_a_change_of_the_weights(toy: Toy) -> None:
    factors = random_factors(toy)
    arrays = dict(toy.source.arrays)
    for name in {name.rpartition(".")[0] for name in factors}:
        change = factors[f"{name}.lora_b"] @ factors[f"{name}.lora_a"]
        arrays[name] = arrays[name] + change.detach().numpy()
    merged = DenseTrunk(toy.spec, ArraySource(arrays), {}, torch.float32).run(some_ids(), LAYERS)
    for found, expected in zip(dense(toy, factors).run(some_ids(), LAYERS), merged, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_factors_change_no_bit(toy: Toy, dtype: torch.dtype) -> None:
    factors = new_factors(toy.source.shapes(), toy.spec.num_layers, 3, seed=0)
    plain, changed = (dense(toy, f, dtype).run(some_ids(), LAYERS) for f in ({}, factors))
    assert all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))


def test_padding_and_neighbours_change_nothing(toy: Toy) -> None:
    ids = some_ids()
    padded = torch.cat((ids, torch.zeros((3, 4), dtype=torch.int64)), 1)
    together = dense(toy).run(padded, (4,))[0]
    for line in range(3):
        torch.testing.assert_close(dense(toy).run(ids[line : line + 1], (4,))[0][0], together[line, :20])


def test_a_sequence_that_skips_a_layer_comes_through_as_it_was(toy: Toy) -> None:
    before, after = dense(toy).run(some_ids(), (2, 3), lambda layer: torch.tensor([0, 2]) if layer == 2 else None)
    _, all_run = dense(toy).run(some_ids(), (2, 3))
    assert torch.equal(before[1], after[1])
    torch.testing.assert_close(after[[0, 2]], all_run[[0, 2]])
    none = dense(toy).run(some_ids(), (2,), lambda layer: torch.tensor([], dtype=torch.int64))[0]
    assert torch.equal(none, torch.tensor(toy.source.load("model.embed_tokens.weight"))[some_ids()])


def same_gradients(ours: Tensor, plain: Tensor, inputs: list[tuple[Tensor, Tensor]]) -> None:
    """Both results, and their gradients with respect to pairs of inputs."""
    torch.testing.assert_close(ours, plain)
    gradient = torch.randn(plain.shape, generator=torch.Generator().manual_seed(9))
    ours.backward(gradient)
    plain.backward(gradient)
    for a, b in inputs:
        torch.testing.assert_close(a.grad, b.grad)


def twice(*shape: int) -> tuple[Tensor, Tensor]:
    """Two leaves with the same numbers."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.clone().requires_grad_(), x.clone().requires_grad_()


def test_the_norm_is_that_of_autograd() -> None:
    (a, b), weight = twice(5, 7, 16), torch.randn(16)
    same_gradients(norm(a, weight, 1e-5, torch.float32), rms_norm(b, weight, 1e-5), [(a, b)])


def test_the_rotation_is_that_of_autograd() -> None:
    a, b = twice(2, 5, 3, 8)
    rotation = Rotation(*(f(torch.arange(20.0).view(5, 1, 4)) for f in (torch.cos, torch.sin)))
    same_gradients(rotate(a, *rotation), rotation.apply(b), [(a, b)])


@pytest.mark.parametrize("biased", [True, False])
def test_adapted_linear_layers_are_those_of_autograd(biased: bool) -> None:
    shapes = ((7, 6), (11, 6))
    leaves = [(twice(3, columns), twice(rows, 3)) for rows, columns in shapes]
    fixed = [(torch.randn(shape), torch.randn(shape[0]) if biased else None) for shape in shapes]
    x = twice(5, 6)
    ours = adapted(x[0], [(*frozen, a[0], b[0]) for frozen, (a, b) in zip(fixed, leaves, strict=True)])
    plain = [
        torch.nn.functional.linear(x[1], *frozen) + x[1] @ a[1].T @ b[1].T
        for frozen, (a, b) in zip(fixed, leaves, strict=True)
    ]
    same_gradients(torch.cat(ours, -1), torch.cat(plain, -1), [x, *(pair for two in leaves for pair in two)])
