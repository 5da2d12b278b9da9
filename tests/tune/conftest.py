"""The toy that tests of tuning share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tune.toys import save_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with the toy, and the toy as Transformers has it."""
    folder = tmp_path_factory.mktemp("toy")
    return folder, save_toy(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed weights of models that are gone tomorrow do not belong in anybody's cache."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Runs set torch's threads; give back those there were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
