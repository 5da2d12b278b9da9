"""Interleaved rounds: in each, every engine does every task once; disturbed repeats are done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from offramp.bench.quiet import Watch
from offramp.bench.results import Cell, Repeat, Task
from offramp.bench.worker import Worker, WorkerFailed

TRIES = 4
"""How often one repeat is tried before its round goes on without it."""

STEPS = 20
"""Steps in a repeat of a `step` task; their median counts."""

WARM_TOKENS, WARM_STEPS = 4, 3

Prompts = Callable[[int, int], list[list[int]]]
"""rows, length -> prompts."""

OnRepeat = Callable[[str, Task, int], None]
"""Told before each repeat: engine, task, round (0 is the warm-up)."""

OnPeak = Callable[[str, int], None]
"""Told how much memory an engine has held."""


class Rounds:
    """Does tasks with all workers. A worker that fails is left out from then on; `failed` says why."""

    def __init__(
        self,
        workers: Mapping[str, Worker],
        prompts: Prompts,
        watch: Watch,
        *,
        repeats: int,
        prompt_tokens: int,
        new_tokens: int,
        max_wait: float,
        on_repeat: OnRepeat,
        on_peak: OnPeak,
    ) -> None:
        self._workers, self._prompts, self._watch = dict(workers), prompts, watch
        self._repeats, self._prompt_tokens, self._new_tokens = repeats, prompt_tokens, new_tokens
        self._max_wait, self._on_repeat, self._on_peak = max_wait, on_repeat, on_peak
        self.failed: dict[str, str] = {}

    def measure(self, tasks: Sequence[Task], engines: Sequence[str]) -> list[Cell]:
        """For each of `tasks`, which are compared with one another too, one cell per engine that got through."""
        cells = {(name, task): Cell(name, task.label, task.unit) for name in engines for task in tasks}
        for name in self._present(engines):
            for task in tasks:
                self._on_repeat(name, task, 0)
                if self._ask(name, task, warm=True) is None:
                    break
        for number in range(self._repeats):
            # Whoever is first in a round is first in one round only.
            names = self._present(engines)
            shift = number % max(len(names), 1)
            for name in [*names[shift:], *names[:shift]]:
                for task in tasks:
                    self._on_repeat(name, task, number + 1)
                    if not self._repeat(cells[name, task], task, number):
                        break
        return [cells[name, task] for task in tasks for name in self._present(engines)]

    def _present(self, engines: Sequence[str]) -> list[str]:
        return [name for name in engines if name in self._workers]

    def _repeat(self, cell: Cell, task: Task, number: int) -> bool:
        for _ in range(TRIES):
            self._watch.wait_until_quiet(self._max_wait)
            before = self._watch.read()
            answer = self._ask(cell.engine, task)
            if answer is None:
                return False
            seen = self._watch.between(before, self._watch.read())
            seconds = answer["seconds"]
            value = 1000 * seconds if task.unit == "ms" else answer["tokens"] / seconds
            cell.repeats.append(Repeat(number, value, seconds, seen.others, seen.steal, seen.clean))
            if seen.clean:
                break
        return True

    def _ask(self, name: str, task: Task, warm: bool = False) -> dict[str, Any] | None:
        try:
            answer = self._workers[name].ask(**self._request(task, warm))
        except WorkerFailed as error:
            self.failed[name] = error.message
            self._workers.pop(name).close()
            return None
        self._on_peak(name, answer["peak_bytes"])
        return answer

    def _request(self, task: Task, warm: bool) -> dict[str, Any]:
        if task.kind == "decode":
            prompts = self._prompts(task.size, self._prompt_tokens)
            return {"do": "decode", "prompts": prompts, "new_tokens": WARM_TOKENS if warm else self._new_tokens}
        if task.kind == "prefill":
            return {"do": "prefill", "prompt": self._prompts(1, task.size)[0]}
        prompt = self._prompts(1, self._prompt_tokens)[0]
        return {"do": "steps", "prompt": prompt, "rows": task.size, "count": WARM_STEPS if warm else STEPS}
