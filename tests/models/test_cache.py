"""Which folder is the cache, and which of its files can be trusted."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from offramp.models.cache import Artifact, cache_dir, is_intact, mark_intact

CONTENT = b"weights"
ARTIFACT = Artifact("w.gguf", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OFFRAMP_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"OFFRAMP_CACHE": "", "XDG_CACHE_HOME": "/b"}, Path("/b/offramp")),
        ({}, Path("~/.cache/offramp").expanduser()),
        ({"OFFRAMP_CACHE": "~/models"}, Path("~/models").expanduser()),
    ],
)
def test_the_cache_is_where_the_environment_says(environ: dict[str, str], expected: Path) -> None:
    assert cache_dir(environ) == expected


def test_a_file_placed_by_hand_is_checked_once(tmp_path: Path) -> None:
    path = tmp_path / ARTIFACT.name
    path.write_bytes(CONTENT)
    assert is_intact(path, ARTIFACT)
    assert (tmp_path / "w.gguf.sha256").read_text() == ARTIFACT.sha256 + "\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOENT])
def test_where_no_marker_can_be_written_the_file_is_intact_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    path = tmp_path / ARTIFACT.name
    path.write_bytes(CONTENT)
    monkeypatch.setattr("os.replace", refuse)
    assert is_intact(path, ARTIFACT) and [*tmp_path.iterdir()] == [path]


def test_a_marked_file_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / ARTIFACT.name
    path.write_bytes(CONTENT)
    mark_intact(path, ARTIFACT)
    path.write_bytes(b"WEIGHTS")
    assert is_intact(path, ARTIFACT)


@pytest.mark.parametrize("content", [b"weight", b"weights!", b"WEIGHTS", None])
def test_any_other_file_is_not_intact(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ARTIFACT.name
    if content is not None:
        path.write_bytes(content)
    assert not is_intact(path, ARTIFACT)


def test_a_marker_does_not_vouch_for_a_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / ARTIFACT.name
    path.write_bytes(CONTENT[:-1])
    mark_intact(path, ARTIFACT)
    assert not is_intact(path, ARTIFACT)


def test_the_marker_of_another_version_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / ARTIFACT.name
    path.write_bytes(CONTENT)
    mark_intact(path, ARTIFACT)
    assert not is_intact(path, ARTIFACT._replace(sha256="0" * 64))
