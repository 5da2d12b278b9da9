"""How many threads compute by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offramp.executors.native import default_threads, threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four processors on two cores, of which the process may use the first three, and no quota."""
    monkeypatch.setattr(threads, "CPUS", tmp_path)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    return tmp_path


def test_two_hardware_threads_of_a_core_count_once(machine: Path) -> None:
    assert default_threads() == 2


def test_without_a_topology_every_processor_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "CPUS", machine / "nowhere")
    assert default_threads() == 3


@pytest.mark.parametrize(("limit", "count"), [("max 100000", 2), ("100000 100000", 1), ("50000 100000", 1), ("", 2)])
def test_a_container_s_quota_is_kept(machine: Path, limit: str, count: int) -> None:
    (machine / "cpu.max").write_text(limit)
    assert default_threads() == count
