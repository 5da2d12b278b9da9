"""Judging whether the machine was ours, on a /proc made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offramp.bench.quiet import GRAIN, IMPATIENT, LIMIT, Usage, Watch

TICKS = os.sysconf("SC_CLK_TCK")
ME = os.getpid()


class Machine:
    """A /proc whose numbers tests set, in seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cpu(self, busy: float, steal: float = 0.0, other_cpu: float = 0.0) -> None:
        lines = ["cpu 9 9 9 9 9 9 9 9 0 0"]
        for name, seconds in (("cpu0", busy), ("cpu1", other_cpu)):
            lines.append(f"{name} {seconds * TICKS:.0f} 0 0 12345 678 0 0 {steal * TICKS:.0f} 0 0")
        (self.folder / "stat").write_text("\n".join([*lines, "intr 1"]), encoding="ascii")

    def process(self, pid: int, parent: int, user: float, reaped: float = 0.0, name: str = "a b) c") -> None:
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = ["S", str(parent), *["0"] * 9, f"{user * TICKS:.0f}", "0", f"{reaped * TICKS:.0f}", "0", "20"]
        (self.folder / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}", encoding="ascii")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.cpu(0.0)
    made.process(ME, 1, 0.0)
    return made


def watch(machine: Machine, *times: float) -> Watch:
    """A watch on processor 0 of the machine, at these times."""
    clock = iter(times)
    return Watch(machine.folder, [0], lambda: next(clock), lambda seconds: None)


def test_what_our_processes_use_is_ours(machine: Machine) -> None:
    seen = watch(machine, 0.0, 10.0)
    before = seen.read()
    machine.cpu(busy=9.0)
    machine.process(ME, 1, 1.0, reaped=1.0)
    machine.process(50, ME, 3.0)
    machine.process(51, 50, 4.0)
    verdict = seen.between(before, seen.read())
    assert (verdict.others, verdict.steal, verdict.clean) == (0.0, 0.0, True)


def test_what_others_use_disturbs(machine: Machine) -> None:
    seen = watch(machine, 0.0, 10.0)
    before = seen.read()
    machine.cpu(busy=3.0)
    machine.process(ME, 1, 1.0)
    machine.process(60, 1, 2.0)
    verdict = seen.between(before, seen.read())
    assert verdict.others == pytest.approx(0.2) and not verdict.clean


def test_stolen_time_disturbs(machine: Machine) -> None:
    seen = watch(machine, 0.0, 10.0)
    before = seen.read()
    machine.cpu(busy=0.0, steal=1.0)
    verdict = seen.between(before, seen.read())
    assert verdict.steal == pytest.approx(0.1) and not verdict.clean


def test_processors_that_are_not_ours_do_not_matter(machine: Machine) -> None:
    seen = watch(machine, 0.0, 10.0)
    before = seen.read()
    machine.cpu(busy=0.0, other_cpu=9.0)
    assert seen.between(before, seen.read()).clean


@pytest.mark.parametrize(("extra", "clean"), [(-0.001, True), (0.001, False)])
def test_the_limit_is_a_share_of_the_time_and_a_grain(extra: float, clean: bool) -> None:
    allowed = LIMIT * 2.0 + GRAIN
    after = Usage(at=2.0, busy=1.0 + allowed + extra, steal=0.0, own=1.0)
    assert Watch().between(Usage(0.0, 0.0, 0.0, 0.0), after).clean is clean


def test_a_system_that_does_not_say_rejects_nothing(tmp_path: Path) -> None:
    seen = Watch(tmp_path / "none")
    verdict = seen.between(seen.read(), seen.read())
    assert (verdict.others, verdict.clean) == (None, True)


def test_waiting_ends_when_it_is_quiet(machine: Machine) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) < 3:
            machine.cpu(busy=float(len(pauses)))

    clock = iter(range(100))
    assert Watch(machine.folder, [0], lambda: float(next(clock)), pause).wait_until_quiet(50.0)
    assert len(pauses) == 3


def test_waiting_ends_when_it_has_been_long(machine: Machine) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds
        machine.cpu(busy=now[0])

    assert not Watch(machine.folder, [0], lambda: now[0], pause).wait_until_quiet(5.0)
    assert 5.0 <= now[0] < 6.0


def test_after_waiting_in_vain_we_wait_less(machine: Machine) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds
        machine.cpu(busy=now[0])

    seen = Watch(machine.folder, [0], lambda: now[0], pause)
    assert not seen.wait_until_quiet(50.0) and now[0] >= 50.0
    assert not seen.wait_until_quiet(50.0) and now[0] < 50.0 + 2 * IMPATIENT
