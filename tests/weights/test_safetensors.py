"""Safetensors files are read as the reference library writes them, and broken ones are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from offramp.errors import WeightsError
from offramp.weights import SafetensorsWeights
from offramp.weights.safetensors import SafetensorsFile
from tests.weights.toys import entry, write_safetensors


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        SafetensorsFile(path)
    return caught.value.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loads_what_the_reference_library_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 5).to(dtype)
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    loaded = SafetensorsWeights(tmp_path).load("w")
    assert loaded.dtype == (np.float16 if dtype == torch.float16 else np.float32)
    np.testing.assert_array_equal(loaded.astype(np.float32), tensor.float().numpy())


def test_bfloat16_is_widened_exactly_for_every_bit_pattern(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    write_safetensors(tmp_path / "model.safetensors", {"w": entry("BF16", [65536], 0, 131072)}, bits.tobytes())
    loaded = SafetensorsWeights(tmp_path).load("w").view(np.uint32)
    np.testing.assert_array_equal(loaded, bits.astype(np.uint32) * 65536)


def test_an_unaligned_tensor_is_loaded_aligned(tmp_path: Path) -> None:
    header = {"a": entry("U8", [1], 0, 1), "w": entry("F32", [2], 1, 9)}
    write_safetensors(tmp_path / "model.safetensors", header, b"\0" + np.array([1, 2], np.float32).tobytes())
    loaded = SafetensorsWeights(tmp_path).load("w")
    assert loaded.flags.aligned
    assert loaded.tolist() == [1, 2]


def test_scalars_and_empty_tensors_load(tmp_path: Path) -> None:
    save_file({"s": torch.tensor(2.0), "e": torch.zeros(0, 4)}, tmp_path / "model.safetensors")
    weights = SafetensorsWeights(tmp_path)
    assert weights.shapes() == {"s": (), "e": (0, 4)}
    assert (float(weights.load("s")), weights.load("e").shape) == (2.0, (0, 4))


def test_shards_are_one_source(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = SafetensorsWeights(tmp_path)
    assert weights.shapes() == {"a": (2,), "b": (3,)}
    assert weights.load("b").tolist() == [0, 0, 0]
    assert [file.name for file in weights.files] == ["model-1.safetensors", "model-2.safetensors"]


def test_a_single_file_counts_before_an_index_that_was_left_there(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    index = {"weight_map": {"b": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert SafetensorsWeights(tmp_path).shapes() == {"a": (2,)}


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("1.safetensors", "2.safetensors"):
        save_file({"a": torch.ones(2), name: torch.ones(1)}, tmp_path / name)
    index = {"weight_map": {name: name for name in ("1.safetensors", "2.safetensors")}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path)
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    assert caught.value.message == f"tensor `a` is in both `{first}` and `{second}`"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "`{path}` is not an index of safetensors files: no readable `weight_map`"),
        ("[1]", "`{path}` is not an index of safetensors files: no readable `weight_map`"),
        (
            '{"weight_map": {"a": "../m.safetensors"}}',
            "`{path}` names `../m.safetensors`; a shard must lie beside its index",
        ),
        (
            '{"weight_map": {"b": "m.safetensors"}}',
            "`{path}` says that tensor `b` is in `m.safetensors`, which does not hold it",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, index: str, message: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path)
    assert caught.value.message == message.replace("{path}", str(path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path)
    assert caught.value.message == f"cannot read `{tmp_path / 'gone.safetensors'}`: No such file or directory"


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path)
    assert caught.value.message == (
        f"`{tmp_path}` holds no weights; looked for `model.safetensors` and `model.safetensors.index.json`"
    )
    assert caught.value.hint == "save the model with `save_pretrained(folder, safe_serialization=True)`"


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path).load("b")
    assert caught.value.message == f"there is no tensor `b` in `{tmp_path}`"


def test_a_type_that_is_no_weight_is_refused_on_load(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        SafetensorsWeights(tmp_path).load("a")
    path = tmp_path / "model.safetensors"
    assert caught.value.message == f"tensor `a` in `{path}` is stored as I64; F32, F16 and BF16 can be read"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)},
            "`{path}` is corrupt: tensors `a` and `b` overlap",
        ),
        (
            {"a": entry("F32", [8], 0, 32)},
            "`{path}` is truncated or corrupt: tensor `a` lies at bytes 70 to 102 of 86",
        ),
        (
            {"a": entry("F32", [3], 0, 8)},
            "`{path}` is corrupt: tensor `a` of shape [3] and dtype F32 needs 12 bytes and has 8",
        ),
        ({"a": entry("Q4", [2], 0, 8)}, "tensor `a` in `{path}` has unknown dtype 'Q4'"),
        (
            {"a": entry("F32", [-2], 0, 8)},
            "`{path}` is corrupt: tensor `a` has a shape or offset that is not a whole number",
        ),
        ({"a": {"dtype": "F32"}}, "`{path}` is corrupt: tensor `a` lacks a dtype, shape or data_offsets"),
        ([1], "`{path}` is corrupt: its header is not a JSON object"),
    ],
)
def test_an_impossible_header_is_refused(tmp_path: Path, header: dict[str, object], message: str) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", header, bytes(16))
    assert refusal(path) == message.replace("{path}", str(path))


def test_a_header_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((4).to_bytes(8, "little") + b"{'a'")
    assert refusal(path) == f"`{path}` is corrupt: its header is not JSON"


@pytest.mark.parametrize("content", [b"abc", (1 << 60).to_bytes(8, "little") + b"{}"])
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert refusal(path) == f"`{path}` is truncated or not a safetensors file: its header does not fit in it"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.touch()
    assert refusal(path) == f"cannot read `{path}`: the file is empty"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        weights = SafetensorsWeights(path.parent)
        outcome = {name: weights.load(name).shape for name in weights.shapes()}
    except WeightsError as error:
        assert "`" in error.message
    else:
        assert outcome == weights.shapes()
