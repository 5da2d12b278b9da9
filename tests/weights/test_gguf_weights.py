"""GGUF files give Hugging Face tensors; broken files are refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.errors import WeightsError
from offramp.weights import GGUFWeights
from tests.weights.toys import permuted, write_gguf

HEADS = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        GGUFWeights(path)
    return caught.value.message


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"])
def test_quantised_tensors_come_back_dequantised(tmp_path: Path, kind: str) -> None:
    qtype = GGMLQuantizationType[kind]
    blocks = quantize(normal(4, 64), qtype)
    path = write_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": blocks}, quantized={"blk.0.ffn_up.weight": qtype})
    loaded = GGUFWeights(path).load("model.layers.0.mlp.up_proj.weight")
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, dequantize(blocks, qtype))


def test_float16_stays_float16(tmp_path: Path) -> None:
    half = normal(2, 8).astype(np.float16)
    loaded = GGUFWeights(write_gguf(tmp_path / "m.gguf", {"output.weight": half})).load("lm_head.weight")
    assert loaded.dtype == np.float16
    np.testing.assert_array_equal(loaded, half)


@pytest.mark.parametrize(("name", "heads"), [("q", 4), ("k", 2)])
@pytest.mark.parametrize("shape", [(32, 8), (32,)])
def test_llama_query_and_key_rows_are_put_back_in_order(
    tmp_path: Path, name: str, heads: int, shape: tuple[int, ...]
) -> None:
    rows, part = normal(*shape), "weight" if len(shape) == 2 else "bias"
    tensors = {f"blk.3.attn_{name}.{part}": permuted(rows, heads)}
    loaded = GGUFWeights(write_gguf(tmp_path / "m.gguf", tensors, numbers=HEADS))
    np.testing.assert_array_equal(loaded.load(f"model.layers.3.self_attn.{name}_proj.{part}"), rows)


@pytest.mark.parametrize(("arch", "name"), [("qwen2", "attn_q"), ("qwen3", "attn_k"), ("llama", "attn_v")])
def test_other_rows_are_left_in_order(tmp_path: Path, arch: str, name: str) -> None:
    rows = normal(32, 8)
    weights = GGUFWeights(write_gguf(tmp_path / "m.gguf", {f"blk.0.{name}.weight": rows}, arch=arch, numbers=HEADS))
    np.testing.assert_array_equal(weights.load(f"model.layers.0.self_attn.{name[-1]}_proj.weight"), rows)


def test_rows_that_the_heads_cannot_share_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"blk.0.attn_q.weight": normal(6, 8)}, numbers=HEADS)
    with pytest.raises(WeightsError) as caught:
        GGUFWeights(path).load("model.layers.0.self_attn.q_proj.weight")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert caught.value.message == f"tensor `{name}` in `{path}` has 6 rows, which 4 heads cannot share"


def test_rope_divisors_are_not_a_weight(tmp_path: Path) -> None:
    weights = GGUFWeights(
        write_gguf(tmp_path / "m.gguf", {"rope_freqs.weight": np.array([1, 8], np.float32), "x": normal(1)})
    )
    assert weights.shapes() == {"x": (1,)}
    assert weights.rope_divisors() == (1, 8)


def test_without_rope_divisors_there_are_none(tmp_path: Path) -> None:
    assert GGUFWeights(write_gguf(tmp_path / "m.gguf", {"x": normal(1)})).rope_divisors() == ()


def test_metadata_is_plain_python(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        {"x": normal(1)},
        numbers={"n": 3, "f": 0.5},
        lists={"tokens": ["a", "é", "日本"], "types": [1, -3]},
        texts={"t": "x"},
    )
    metadata = GGUFWeights(path).metadata
    assert {key: metadata[key] for key in ("n", "f", "tokens", "types", "t")} == {
        "n": 3,
        "f": 0.5,
        "tokens": ["a", "é", "日本"],
        "types": [1, -3],
        "t": "x",
    }


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"x": normal(1)})
    with pytest.raises(WeightsError) as caught:
        GGUFWeights(path).load("y")
    assert caught.value.message == f"there is no tensor `y` in `{path}`"


def test_a_type_that_cannot_be_read_is_refused_on_load(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"x": np.ones(4, np.float64)})
    with pytest.raises(WeightsError) as caught:
        GGUFWeights(path).load("x")
    assert caught.value.message == f"tensor `x` in `{path}` is stored as F64, which cannot be read"


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"x": normal(100)})
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-200])
    end = size - 16  # 400 bytes of data padded to 416
    assert refusal(path) == f"`{path}` is truncated: tensor `x` ends at byte {end} of {size - 200}"


def test_a_cut_off_header_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"x": normal(1)})
    path.write_bytes(path.read_bytes()[:30])
    assert refusal(path) == f"`{path}` is truncated: its header ends early"


def header(*, tensors: bytes = b"", values: bytes = b"", num_tensors: int = 0, num_values: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_values) + values + tensors


def tensor(name: str, kind: int, offset: int, *dims: int) -> bytes:
    text = struct.pack("<Q", len(name)) + name.encode()
    return text + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def value(key: str, kind: int, data: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML" + bytes(60), "`{path}` is not a GGUF file"),
        (
            b"GGUF" + bytes([0, 0, 0, 3]) + bytes(60),
            "`{path}` is GGUF version 50331648; little-endian versions 2 and 3 can be read",
        ),
        (header(num_values=1, values=value("k", 99, b"")), "`{path}` is corrupt: unknown metadata type 99"),
        (
            header(num_values=1, values=value("k", 9, struct.pack("<IQ", 9, 1))),
            "`{path}` is corrupt: unknown type 9 in an array",
        ),
        (
            header(num_values=1, values=value("k", 9, struct.pack("<IQ", 8, 1 << 50))),
            "`{path}` is corrupt: an array of 1125899906842624 values runs past the end of the file",
        ),
        (
            header(num_values=1, values=struct.pack("<Q", 999)),
            "`{path}` is corrupt: a string of 999 bytes runs past the end of the file",
        ),
        (
            header(num_values=1, values=struct.pack("<Q", 1) + b"\xff"),
            "`{path}` is corrupt: a string is not UTF-8",
        ),
        (
            header(num_values=2, values=value("k", 0, b"\1") * 2),
            "`{path}` is corrupt: metadata key `k` is there twice",
        ),
        (
            header(num_values=1, values=value("general.alignment", 4, struct.pack("<I", 3))),
            "`{path}` is corrupt: `general.alignment` is 3, not a power of two",
        ),
        (header(num_tensors=2, tensors=tensor("x", 0, 0, 1) * 2), "`{path}` is corrupt: tensor `x` is there twice"),
        (
            header(num_tensors=1, tensors=tensor("x", 0, 0, 1, 1, 1, 1, 1)),
            "`{path}` is corrupt: tensor `x` has 5 dimensions",
        ),
        (header(num_tensors=1, tensors=tensor("x", 77, 0, 1)), "tensor `x` in `{path}` has unknown type 77"),
        (
            header(num_tensors=1, tensors=tensor("x", 3, 0, 31)),
            "`{path}` is corrupt: tensor `x` of shape [31] is not made of rows of blocks of 32",
        ),
        (
            header(num_tensors=2, tensors=tensor("x", 0, 0, 2) + tensor("y", 0, 4, 2)) + bytes(99),
            "`{path}` is corrupt: tensors `x` and `y` overlap",
        ),
    ],
)
def test_a_corrupt_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert refusal(path) == message.replace("{path}", str(path))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    write_gguf(path, {"a": np.ones((2, 4), np.float32), "output.weight": normal(1, 4)}, lists={"l": ["a", "bc"]})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        weights = GGUFWeights(path)
        outcome = {name: weights.load(name).shape for name in weights.shapes()}
    except WeightsError as error:
        assert "`" in error.message
    else:
        assert outcome == weights.shapes()
