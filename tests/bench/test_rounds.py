"""Rounds: who is asked for what and when, repeats that are disturbed, workers that fail."""

from __future__ import annotations

from collections.abc import Mapping

from offramp.bench.quiet import Disturbance
from offramp.bench.results import Task
from offramp.bench.rounds import STEPS, TRIES, Rounds
from tests.bench.toys import LOUD, QUIET, FakeWatch, NearWorker, toy_input


def rounds(
    workers: Mapping[str, NearWorker], *verdicts: Disturbance, repeats: int = 3, heard: list[str] | None = None
) -> Rounds:
    """Rounds over fake workers; `heard` collects engine and round of what is announced."""
    said = [] if heard is None else heard
    return Rounds(
        workers,
        toy_input().prompts,
        FakeWatch(*verdicts),
        repeats=repeats,
        prompt_tokens=6,
        new_tokens=10,
        max_wait=1.0,
        on_repeat=lambda name, task, number: said.append(f"{name}{number}"),
        on_peak=lambda name, peak: None,
    )


def test_decode_asks_for_a_batch_and_gives_tokens_per_second() -> None:
    worker = NearWorker()
    (cell,) = rounds({"a": worker}).measure([Task("decode", 2)], ["a"])
    asked = worker.asked[-1]
    assert [len(prompt) for prompt in asked["prompts"]] == [6, 6] and asked["new_tokens"] == 10
    assert asked["prompts"][0] != asked["prompts"][1]
    assert (cell.task, cell.unit) == ("decode/2", "tokens/s")
    assert cell.spread == (200.0, 200.0, 200.0)


def test_the_warm_up_is_short_and_does_not_count() -> None:
    worker = NearWorker()
    (cell,) = rounds({"a": worker}).measure([Task("decode", 1)], ["a"])
    assert len(worker.asked) == 4 and worker.asked[0]["new_tokens"] < 10
    assert [r.round for r in cell.repeats] == [0, 1, 2]


def test_a_step_is_timed_in_milliseconds() -> None:
    worker = NearWorker()
    (cell,) = rounds({"a": worker}).measure([Task("step", 4)], ["a"])
    assert worker.asked[-1] == {"do": "steps", "prompt": [0, 1, 2, 3, 4, 5], "rows": 4, "count": STEPS}
    assert cell.unit == "ms" and cell.spread == (20.0, 20.0, 20.0)


def test_engines_take_turns_and_each_is_first_once() -> None:
    heard: list[str] = []
    workers = {name: NearWorker() for name in "abc"}
    rounds(workers, heard=heard).measure([Task("prefill", 8)], list("abc"))
    assert heard == ["a0", "b0", "c0", "a1", "b1", "c1", "b2", "c2", "a2", "c3", "a3", "b3"]


def test_tasks_that_are_compared_take_turns() -> None:
    heard: list[str] = []
    steps = [Task("step", 1), Task("step", 4)]
    workers = {name: NearWorker() for name in "ab"}
    cells = rounds(workers, heard=heard, repeats=1).measure(steps, list("ab"))
    assert heard == ["a0", "a0", "b0", "b0", "a1", "a1", "b1", "b1"]
    assert [request["rows"] for request in workers["a"].asked] == [1, 4, 1, 4]
    assert [(cell.task, cell.engine) for cell in cells] == [(f"step/{n}", name) for n in (1, 4) for name in "ab"]


def test_a_disturbed_repeat_is_done_again_and_kept_as_rejected() -> None:
    (cell,) = rounds({"a": NearWorker()}, QUIET, LOUD, QUIET).measure([Task("decode", 1)], ["a"])
    assert [(r.round, r.clean) for r in cell.repeats] == [(0, True), (1, False), (1, True), (2, True)]
    assert cell.rejected == 1 and sorted(cell.clean) == [0, 1, 2]


def test_a_machine_that_stays_loud_is_given_up_for_the_round() -> None:
    (cell,) = rounds({"a": NearWorker()}, *[LOUD] * TRIES, repeats=2).measure([Task("decode", 1)], ["a"])
    assert cell.rejected == TRIES and sorted(cell.clean) == [1]


def test_a_worker_that_fails_is_left_out_from_then_on() -> None:
    good, bad = NearWorker(), NearWorker(fails_at="prefill")
    both = rounds({"good": good, "bad": bad})
    assert [c.engine for c in both.measure([Task("decode", 1)], ["good", "bad"])] == ["good", "bad"]
    assert [c.engine for c in both.measure([Task("prefill", 8)], ["good", "bad"])] == ["good"]
    assert both.failed == {"bad": "no prefill today"} and bad.closed
    assert [c.engine for c in both.measure([Task("decode", 2)], ["good", "bad"])] == ["good"]
