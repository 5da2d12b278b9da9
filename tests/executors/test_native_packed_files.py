"""Files of packed matrices: their names, and which of them are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from offramp.errors import InvalidParameter
from offramp.executors.native.cache import load_packed
from offramp.executors.native.packed_files import limit_gb, packed_folder, packed_path, packed_sizes, prune
from offramp.executors.native.plan import plan_matrices
from offramp.weights import GGUFWeights
from tests.executors.native import SPEC, gguf_model

MB = 1e-3
"""In gigabytes."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OFFRAMP_PACKED_GB", raising=False)
    packed_folder().mkdir(parents=True)
    return packed_folder()


def put(name: str, age: float, size: int = 1_000_000) -> Path:
    """A file that was used `age` seconds ago."""
    path = packed_folder() / name
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def names() -> list[str]:
    return [path.name for path in packed_sizes()]


def test_what_was_not_used_for_longest_goes_first() -> None:
    new = [put(f"{age}.bin", age) for age in (3, 1, 2, 0)][-1]
    assert names() == ["3.bin", "2.bin", "1.bin", "0.bin"]
    prune(new, 4 * MB)
    assert len(names()) == 4
    prune(new, 3.9 * MB)
    assert names() == ["2.bin", "1.bin", "0.bin"]
    prune(new, 2 * MB)
    assert names() == ["1.bin", "0.bin"]


def test_the_new_file_stays_whatever_its_size_and_age() -> None:
    put("small.bin", 1)
    prune(put("large.bin", 9, 3_000_000), 0.0)
    assert names() == ["large.bin"]


def test_drafts_that_nobody_finishes_are_deleted() -> None:
    new = put("a.bin", 0)
    put("b.bin.17", 5), put("c.bin.18", 7200)
    prune(new, 1.0)
    assert sorted(path.name for path in packed_folder().iterdir()) == ["a.bin", "b.bin.17"]


def load(folder: Path, kind: str) -> Path:
    """Load a toy model; returns the file it is packed in."""
    folder.mkdir(exist_ok=True)
    source = gguf_model(folder, {}, kind) if not (folder / "toy.gguf").exists() else GGUFWeights(folder / "toy.gguf")
    load_packed(plan_matrices(SPEC, source, "int8"), source, "int8")
    return packed_path(source.files, "int8")


def test_loading_a_model_keeps_it_and_deletes_what_was_used_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = load(tmp_path / "a", "Q4_1"), load(tmp_path / "b", "Q8_0")
    size = first.stat().st_size
    monkeypatch.setenv("OFFRAMP_PACKED_GB", str(2.5 * size / 1e9))
    for age, path in ((10, first), (5, second)):
        os.utime(path, (time.time() - age,) * 2)
    assert load(tmp_path / "a", "Q4_1") == first, "read, so it is the newest"
    third = load(tmp_path / "c", "Q4_0")
    assert set(packed_sizes()) == {first, third}


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_the_end() -> None:
    path = put("a.bin", 1)
    with path.open("rb") as file:
        assert len(file.read(10)) == 10
        prune(put("b.bin", 0), 0.0)
        assert not path.exists() and len(file.read()) == 999_990


def test_names_say_the_model_and_tell_folders_apart() -> None:
    def name(path: str, dtype: str = "int8") -> str:
        return packed_path([Path(path)], dtype).name

    assert name("/models/my model.gguf").startswith("my_model-") and name("/models/my model.gguf").endswith("-int8.bin")
    assert name("/models/qwen/model.safetensors").startswith("qwen-")
    assert len({name("/a/x.gguf"), name("/b/x.gguf"), name("/a/y.gguf"), name("/a/x.gguf", "int4")}) == 4


def test_another_revision_from_the_hub_takes_the_place_of_the_one_before() -> None:
    def path(revision: str) -> Path:
        return packed_path([Path(f"/hub/models--a--b/snapshots/{revision}/model.safetensors")], "int8")

    assert path("0123") == path("4567")
    assert path("0123").name.startswith("models--a--b-")


@pytest.mark.parametrize(("text", "limit"), [("", 10.0), ("2.5", 2.5), ("0", 0.0), ("inf", float("inf"))])
def test_the_limit_is_a_number_of_gigabytes(text: str, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_PACKED_GB", text)
    assert limit_gb() == limit


@pytest.mark.parametrize("text", ["ten", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_PACKED_GB", text)
    with pytest.raises(InvalidParameter, match=f"`OFFRAMP_PACKED_GB` must be a number of at least 0, not `{text}`"):
        limit_gb()
