"""Packs that change the trunk, on both executors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.errors import PackError
from offramp.executors.native.cache import load_packed
from offramp.executors.native.layout import PackedMatrix
from offramp.executors.native.packed_files import packed_sizes
from offramp.executors.native.plan import plan_matrices
from offramp.exits.pack import Base, ExitPack, ExitSpec, static_exits
from offramp.exits.read import read_pack
from offramp.exits.trunk import LINEAR
from offramp.exits.write import write_pack
from offramp.models.spec import ModelSpec
from offramp.weights import GGUFWeights, WeightSource
from tests.executors.kinds import KINDS, make_executor
from tests.executors.native import SPEC, gguf_model
from tests.executors.toys import block_tables, every_log_prob, run_all
from tests.toy import DictSource, toy_spec, toy_weights

LENGTHS = (1, 7, 12)
UNCHANGED = "model.layers.0.mlp.down_proj.weight"


def tuned_pack(folder: Path, spec: ModelSpec, source: WeightSource, seed: int = 0) -> ExitPack:
    """One exit, and a change of all matrices of all layers but one."""
    pick, trunk = np.random.default_rng(seed), {}
    for name, shape in source.shapes().items():
        if name.removesuffix("_proj.weight").endswith(LINEAR) and name != UNCHANGED:
            trunk[f"{name}.lora_a"] = pick.standard_normal((3, shape[1])) / shape[1] ** 0.5
            trunk[f"{name}.lora_b"] = 0.2 * pick.standard_normal((shape[0], 3))
    base = Base(max(2, spec.num_layers), spec.hidden_size, spec.vocab_size)
    write_pack(folder, base, [ExitSpec(1)], {}, trunk=trunk)
    return read_pack(folder)


def merged(source: WeightSource, pack: ExitPack) -> DictSource:
    """The explicit merge."""
    assert pack.trunk is not None
    arrays = {name: source.load(name) for name in source.shapes()}
    for name in pack.trunk.changed:
        a, b = (factor.astype(np.float32) for factor in pack.trunk.factors(name))
        arrays[name] = arrays[name] + b @ a
    return DictSource(arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pack_that_changes_the_trunk_runs_the_merged_model(tmp_path: Path, kind: str) -> None:
    spec = toy_spec()
    source = DictSource(toy_weights(spec))
    pack = tuned_pack(tmp_path, spec, source)
    prompts = [np.random.default_rng(n).integers(1, spec.vocab_size, n).tolist() for n in LENGTHS]
    tables = block_tables(LENGTHS, 4, 24)

    def log_probs(weights: WeightSource, exits: ExitPack) -> list[Tensor]:
        executor = make_executor(kind, spec, weights, exits, block_size=4, num_blocks=24)
        run_all(executor, prompts, tables)
        pairs = [*zip(LENGTHS, tables, strict=True)]
        return [every_log_prob(executor, boundary, n, table) for boundary in (1, 2) for n, table in pairs]

    plain = static_exits((1,), spec.num_layers)
    found, expected, before = log_probs(source, pack), log_probs(merged(source, pack), plain), log_probs(source, plain)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not any(torch.allclose(a, b, atol=0.01) for a, b in zip(found, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_does_not_fit_is_refused(tmp_path: Path, kind: str) -> None:
    spec = toy_spec()
    pack = tuned_pack(tmp_path, spec, DictSource(toy_weights(spec)))
    wider = ModelSpec(**{**{name: getattr(spec, name) for name in spec.__slots__}, "intermediate_size": 32})
    with pytest.raises(PackError, match=r"changes `model.layers.0.mlp.gate_proj.weight` of shape \[24, 16\]"):
        make_executor(kind, wider, DictSource(toy_weights(wider)), pack, block_size=4, num_blocks=4)


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GGUFWeights:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    return gguf_model(tmp_path, {}, "Q4_1")


def load(source: WeightSource, dtype: str = "int4") -> dict[str, PackedMatrix]:
    return load_packed(plan_matrices(SPEC, source, dtype), source, dtype)


def same(a: PackedMatrix, b: PackedMatrix) -> bool:
    return a[:3] == b[:3] and np.array_equal(a.data, b.data)


def test_unchanged_blocks_stay_lossless(gguf: GGUFWeights, tmp_path: Path) -> None:
    tuned = tuned_pack(tmp_path / "pack", SPEC, gguf).tuned(gguf)
    plain, changed = load(gguf), load(tuned)
    for name in plain:
        assert same(plain[name], changed[name]) == (name in ("embedding", "0.down"))


def test_the_model_and_each_pack_keep_packed_weights_of_their_own(gguf: GGUFWeights, tmp_path: Path) -> None:
    first, second = (
        tuned_pack(tmp_path / name, SPEC, gguf, seed=seed).tuned(gguf) for seed, name in enumerate(("first", "second"))
    )
    sources = (gguf, first, second)
    fresh = [load(source) for source in sources]
    written = {path: path.stat().st_ino for path in packed_sizes()}
    assert len(written) == 3
    for source, before in zip(sources, fresh, strict=True):
        again = load(source)
        assert all(same(before[name], again[name]) for name in before)
    assert {path: path.stat().st_ino for path in packed_sizes()} == written


def test_a_pack_that_was_tuned_again_replaces_its_own(gguf: GGUFWeights, tmp_path: Path) -> None:
    before = load(tuned_pack(tmp_path / "pack", SPEC, gguf).tuned(gguf))
    after = load(tuned_pack(tmp_path / "pack", SPEC, gguf, seed=1).tuned(gguf))
    assert not same(before["0.qkv"], after["0.qkv"])
    assert len(packed_sizes()) == 1
