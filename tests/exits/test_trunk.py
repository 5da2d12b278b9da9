"""Trunk adapters of exit packs: what is read, what is refused, and what is merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from offramp.errors import OfframpError, PackError, WeightsError
from offramp.exits.pack import ExitPack
from offramp.exits.read import read_pack
from offramp.exits.write import write_pack
from offramp.weights.merged import MergedWeights
from tests.exits.test_pack import EXITS, D, changed
from tests.toy import DictSource

Q, UP = "model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.up_proj.weight"
SHAPES: dict[str, tuple[int, ...]] = {
    f"{Q}.lora_a": (2, D),
    f"{Q}.lora_b": (6, 2),
    f"{UP}.lora_a": (2, D),
    f"{UP}.lora_b": (12, 2),
}
PLAIN = {"format": 1, "base": EXITS["base"], "trunk": {"rank": 2}, "exits": [{"layer": 3}]}
MODEL = {Q: (6, D), UP: (12, D), "model.norm.weight": (D,)}


def arrays(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    pick = np.random.default_rng(seed)
    return {name: pick.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def write(folder: Path, values: object = PLAIN, tensors: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "exits.json").write_text(json.dumps(values))
    save_file(arrays(SHAPES) if tensors is None else tensors, str(folder / "trunk.safetensors"))
    return folder


def read(folder: Path) -> ExitPack:
    return read_pack(write(folder))


def model() -> DictSource:
    return DictSource({name: array.astype(np.float32) for name, array in arrays(MODEL, 1).items()})


def test_a_pack_without_a_trunk_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    values = {key: value for key, value in PLAIN.items() if key != "trunk"}
    (tmp_path / "exits.json").write_text(json.dumps(values))
    pack, weights = read_pack(tmp_path), model()
    assert pack.trunk is None and pack.tuned(weights) is weights


def test_changed_matrices_are_merged_and_all_else_stays(tmp_path: Path) -> None:
    pack, plain, factors = read(tmp_path), model(), arrays(SHAPES)
    assert pack.trunk is not None and (pack.trunk.rank, pack.trunk.changed) == (2, frozenset({Q, UP}))
    merged = pack.tuned(plain)
    assert merged.shapes() == plain.shapes() and merged.files == ()
    for name in (Q, UP):
        a, b = (factors[f"{name}.lora_{part}"].astype(np.float64) for part in "ab")
        np.testing.assert_allclose(merged.load(name), plain.load(name) + b @ a, rtol=1e-5, atol=1e-5)
        assert merged.load(name).dtype == np.float32
    assert merged.load("model.norm.weight") is plain.load("model.norm.weight")


def test_weights_that_hold_no_blocks_have_none_when_merged(tmp_path: Path) -> None:
    merged = read(tmp_path).tuned(model())
    assert isinstance(merged, MergedWeights)
    assert merged.block_kind(Q) is None and merged.block_kind("model.norm.weight") is None


def test_the_identity_covers_the_trunk(tmp_path: Path) -> None:
    first = read(tmp_path).identity
    assert read_pack(write(tmp_path, tensors=arrays(SHAPES, 7))).identity != first == read(tmp_path).identity


def test_a_trunk_is_read_as_it_was_written(tmp_path: Path) -> None:
    pack = read(tmp_path / "first")
    assert pack.base is not None and pack.trunk is not None
    write_pack(tmp_path / "second", pack.base, pack.exits, {}, trunk=pack.trunk.tensors())
    again = read_pack(tmp_path / "second").trunk
    assert again is not None and again.rank == 2
    for name, array in arrays(SHAPES).items():
        np.testing.assert_array_equal(again.tensors()[name], array)
    write_pack(tmp_path / "second", pack.base, pack.exits, {})
    assert read_pack(tmp_path / "second").trunk is None


WITHOUT = {name: array for name, array in arrays(SHAPES).items() if name != f"{UP}.lora_b"}
NORM = "model.layers.0.input_layernorm.weight.lora_a"
REFUSED: list[tuple[object, dict[str, np.ndarray] | None, str]] = [
    ({**PLAIN, "trunk": 32}, None, "`trunk` must be an object, not 32"),
    ({**PLAIN, "trunk": {}}, None, "`trunk` lacks the key `rank`"),
    (
        {**PLAIN, "trunk": {"rank": 0}},
        None,
        "`trunk` in `exits.json`: `rank` must be a whole number of at least 1, not 0",
    ),
    ({**PLAIN, "trunk": {"rank": 3}}, None, f"tensor `{Q}.lora_a` must have shape [3, columns], not [2, 8]"),
    (PLAIN, {}, "`trunk.safetensors` changes nothing"),
    (PLAIN, WITHOUT, f"`trunk.safetensors` lacks the tensor `{UP}.lora_b`"),
    (PLAIN, {**arrays(SHAPES), NORM: np.ones((2, 8))}, f"`trunk.safetensors` has an unknown tensor `{NORM}`"),
    (
        PLAIN,
        {**arrays(SHAPES), f"{Q}.lora_b": np.ones((2, 6), np.float32)},
        f"tensor `{Q}.lora_b` must have shape [rows, 2], not [2, 6]",
    ),
    (
        PLAIN,
        {**arrays(SHAPES), f"{Q}.lora_b": np.full((6, 2), np.nan, np.float16)},
        f"tensor `{Q}.lora_b` holds a number that is not finite",
    ),
]


@pytest.mark.parametrize(("values", "tensors", "message"), REFUSED)
def test_what_a_trunk_cannot_be(
    tmp_path: Path, values: object, tensors: dict[str, np.ndarray] | None, message: str
) -> None:
    with pytest.raises(PackError) as error:
        read_pack(write(tmp_path, values, tensors))
    assert error.value.message == message


def test_file_and_key_come_together(tmp_path: Path) -> None:
    values: Any = changed("exits", to=[{"layer": 3}])
    with pytest.raises(PackError) as error:
        read_pack(write(tmp_path, values))
    assert error.value.message == ("the exit pack has a file `trunk.safetensors`, and `exits.json` has no key `trunk`")
    (write(tmp_path) / "trunk.safetensors").unlink()
    with pytest.raises(PackError) as error:
        read_pack(tmp_path)
    assert error.value.message == ("`exits.json` names a `trunk`, and the exit pack has no file `trunk.safetensors`")


def test_a_corrupt_trunk_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "trunk.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="truncated"):
        read_pack(tmp_path)


@pytest.mark.parametrize(
    ("shapes", "found"),
    [({**MODEL, UP: (D, 12)}, "it has shape [8, 12]"), ({Q: (6, D)}, "there is none")],
)
def test_a_trunk_of_another_model_is_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], found: str) -> None:
    with pytest.raises(OfframpError) as error:
        read(tmp_path).tuned(DictSource(arrays(shapes)))
    assert error.value.message == (f"the exit pack changes `{UP}` of shape [12, 8], and in this model {found}")
    assert error.value.hint == "use the model that the pack was made for"
