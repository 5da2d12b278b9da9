"""The file of packed matrices: written once, trusted never."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offramp.executors.native import cache
from offramp.executors.native.layout import PackedMatrix
from offramp.executors.native.pack import pack_model
from offramp.executors.native.plan import plan_matrices
from offramp.weights import GGUFWeights
from tests.executors.native import SPEC, gguf_model


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GGUFWeights:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    return gguf_model(tmp_path, {}, "Q4_1")


class Loader:
    """Loads `source` and counts how often it was packed for that."""

    def __init__(self, source: GGUFWeights, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.packed = source, 0

        def count(*arguments: object) -> object:
            self.packed += 1
            return pack_model(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(cache, "pack_model", count)

    def __call__(self, dtype: str = "int8") -> dict[str, PackedMatrix]:
        return cache.load_packed(plan_matrices(SPEC, self.source, dtype), self.source, dtype)

    @property
    def files(self) -> list[Path]:
        return sorted((Path(os.environ["OFFRAMP_CACHE"]) / "packed").iterdir())


@pytest.fixture
def load(source: GGUFWeights, monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(source, monkeypatch)


def same(first: dict[str, PackedMatrix], second: dict[str, PackedMatrix]) -> bool:
    return [*first] == [*second] and all(
        a[:3] == b[:3] and np.array_equal(a.data, b.data) for a, b in zip(first.values(), second.values(), strict=True)
    )


def test_a_model_is_packed_once_for_each_type(load: Loader) -> None:
    fresh, other = load(), load("int4")
    assert same(load(), fresh) and same(load("int4"), other)
    assert load.packed == 2
    assert [path.name.rpartition("-")[2] for path in load.files] == ["int4.bin", "int8.bin"]


def test_what_was_read_is_aligned(load: Loader) -> None:
    load()
    assert all(matrix.data.ctypes.data % 64 == 0 for matrix in load().values())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size if size >= 0 else path.stat().st_size + size)


def forged(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Change the header and give it a checksum that fits."""

    def change(path: Path) -> None:
        content = path.read_bytes()
        size = int.from_bytes(content[40:48], "little")
        text, rest = content[48 : 48 + size], content[48 + size :]
        assert old in text
        text = text.replace(old, new, 1)
        digest = hashlib.sha256(text).digest()
        path.write_bytes(content[:8] + digest + len(text).to_bytes(8, "little") + text + rest)

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "nothing left": cut(0),
    "cut in the magic": cut(5),
    "cut in the header": cut(200),
    "cut after the header": cut(4096),
    "cut at the end": cut(-1),
    "grown": grown,
    "magic": lambda path: flip(path, 0),
    "checksum of the header": lambda path: flip(path, 20),
    "length of the header": lambda path: flip(path, 46),
    "header": lambda path: flip(path, 300),
    "first byte of the data": lambda path: flip(path, 4096),
    "last byte of a scale": lambda path: flip(path, path.stat().st_size - 1),
    "forged offset": forged(b"0.down", b"0.dowm"),
    "forged type": forged(b'"i8"', b'"f32"'),
    "forged source": forged(b'"source": "', b'"source": "0'),
    "forged checksums": forged(b'"checksums": [', b'"checksums": [-1, '),
    "no checksums": forged(b'"checksums"', b'"checksumz"'),
    "not JSON": forged(b"{", b"["),
    "garbage": garbage,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_packed_anew_and_replaced(load: Loader, damage: str) -> None:
    fresh = load()
    DAMAGE[damage](load.files[0])
    assert same(load(), fresh) and load.packed == 2
    assert same(load(), fresh) and load.packed == 2


def test_any_flipped_bit_is_noticed(load: Loader) -> None:
    fresh = load()
    (path,) = load.files
    padding = set(range(48 + int.from_bytes(path.read_bytes()[40:48], "little"), 4096))
    for at in np.random.default_rng(1).integers(0, path.stat().st_size, 40).tolist():
        before = load.packed
        flip(path, at)
        assert same(load(), fresh)
        assert (load.packed > before) is (at not in padding)


def test_a_model_file_that_changed_is_packed_anew_and_replaced(load: Loader, source: GGUFWeights) -> None:
    load()
    os.utime(source.path, ns=(1, 1))
    load()
    assert load.packed == 2 and len(load.files) == 1


def test_another_version_of_the_packing_code_does_not_trust_the_file(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setattr(cache, "packing_identity", lambda: "another")
    load()
    assert load.packed == 2 and len(load.files) == 1


def test_without_a_folder_to_write_to_a_model_is_packed_every_time(
    load: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "file"))
    assert same(load(), load()) and load.packed == 2


def test_a_file_that_cannot_be_finished_leaves_nothing(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    load()
    assert load.files == []
