"""The fingerprint sees what it samples, and nothing but contents."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import TempPathFactory

from offramp.weights import fingerprint
from offramp.weights.source import SAMPLE_BYTES, SAMPLES


@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, SAMPLES * SAMPLE_BYTES - 1))
def test_any_byte_of_a_file_of_4_mib_counts(tmp_path_factory: TempPathFactory, at: int) -> None:
    folder = tmp_path_factory.mktemp("files")
    content = bytearray(SAMPLES * SAMPLE_BYTES)
    (folder / "a").write_bytes(content)
    content[at] = 1
    (folder / "b").write_bytes(content)
    assert fingerprint([folder / "a"]) != fingerprint([folder / "b"])


def test_the_last_byte_of_a_large_file_counts(tmp_path: Path) -> None:
    content = bytearray(3 * SAMPLES * SAMPLE_BYTES + 17)
    (tmp_path / "a").write_bytes(content)
    content[-1] = 1
    (tmp_path / "b").write_bytes(content)
    assert fingerprint([tmp_path / "a"]) != fingerprint([tmp_path / "b"])


def test_the_name_of_a_file_does_not_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    assert fingerprint([tmp_path / "a"]) == fingerprint([tmp_path / "b"])


def test_where_one_file_ends_and_the_next_begins_counts(tmp_path: Path) -> None:
    for name, content in (("a", b"xy"), ("b", b"z"), ("c", b"x"), ("d", b"yz")):
        (tmp_path / name).write_bytes(content)
    assert fingerprint([tmp_path / "a", tmp_path / "b"]) != fingerprint([tmp_path / "c", tmp_path / "d"])
