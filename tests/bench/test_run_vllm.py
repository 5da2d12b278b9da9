"""The folder that vLLM's worker converts a GGUF file into."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.engines import WORKERS


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker program as a module; it imports its neighbours by plain names."""
    monkeypatch.syspath_prepend(str(WORKERS))
    return importlib.import_module("run_vllm")


def model(folder: Path) -> dict[str, Any]:
    return {"form": "gguf", "path": "model.gguf", "folder": str(folder)}


def test_a_conversion_that_breaks_off_leaves_nothing(
    worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(command: list[str], **_: Any) -> None:
        Path(command[-1]).mkdir()
        (Path(command[-1]) / "config.json").touch()
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", convert)
    with pytest.raises(subprocess.CalledProcessError):
        worker._folder(model(tmp_path / "made"))
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_is_done_once_and_under_another_name(
    worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = tmp_path / "made", []

    def convert(command: list[str], **_: Any) -> None:
        assert not made.exists()
        draft = Path(command[-1])
        asked.append(draft.name)
        draft.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (draft / name).touch()

    monkeypatch.setattr(subprocess, "run", convert)
    assert worker._folder(model(made)) == worker._folder(model(made)) == made
    assert len(asked) == 1 and asked[0].startswith("made.")
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert list(tmp_path.iterdir()) == [made]
