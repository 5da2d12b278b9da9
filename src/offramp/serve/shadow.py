"""Shadow samples, in the engine's process: some jobs are rescored at full depth while no other runs or waits.

A job is drawn, or not, when it comes, before anything is known of it; nothing that happens later changes that. Its
first output stands for it. Of the tokens generated there, those are counted that one exact full-depth pass over the
same tokens would have chosen otherwise: the loss `disagreement` of `offramp.calibrate.losses`. Every choice is made as
it was made, with the same penalties, masks and noise; so the loss of a sampled output is well defined, too, and that of
`lossless` is 0 by construction, unless there is a bug.

A pass goes in short steps, but for a source, which an encoder reads whole. A job that comes ends it there: its blocks
are back before the job's first step, and it begins anew later, from what the prefix cache has kept of it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Generator
from collections.abc import Sequence as Seq
from contextlib import closing
from random import Random

from offramp.engine.decide import score_row_in
from offramp.engine.sequence import Sequence
from offramp.engine.sources import root_of
from offramp.exits.calibration import dial_positions
from offramp.llm.forced import ForcedPass
from offramp.llm.llm import LLM
from offramp.serve.positions import position_of, promised
from offramp.serve.protocol import Dial, OnRescored, Outcome, Rescored

MOST = 64
"""Jobs that are drawn and not yet rescored, at most; those drawn beyond are dropped."""

STEP_SECONDS = 0.01
"""What a step of a pass may take, where one row does not take half of it already."""


class Shadow:
    """Draws the `share` of all jobs, and rescores them. `tell` is told what became of each."""

    def __init__(self, llm: LLM, share: float, tell: OnRescored, random: Random | None = None) -> None:
        self._engine, self._share, self._tell, self._random = llm.engine, share, tell, random or Random()
        self._calibrated = tuple(dial_positions(llm.pack.calibrations, llm.calibration_key))
        self._repeatable = llm.backend.executor == "native"
        self._running: dict[int, str] = {}  # the dial's position, by a drawn job's first output
        self._waiting: deque[tuple[Sequence, str]] = deque()
        self._pass: Generator[None, None, int] | None = None  # over the first that waits

    @property
    def has_work(self) -> bool:
        """Whether there is a step to do, once no job runs or waits."""
        return bool(self._waiting)

    def submitted(self, number: int, dial: Dial) -> None:
        """A job has come, with this first output."""
        if self._random.random() >= self._share:
            return
        position = position_of(dial, self._calibrated)
        if len(self._running) + len(self._waiting) < MOST:
            self._running[number] = position
        else:
            self._say(self._engine.sequences[number], position, "dropped")

    def ended(self, sequence: Sequence) -> None:
        """An output has ended."""
        position = self._running.pop(sequence.number, None)
        if position is None:
            return
        if sequence.switched_off and not sequence.verifies:
            position = "off"  # before it began
        if sequence.finish_reason in ("stop", "length"):
            self._waiting.append((sequence, position))
        else:
            self._say(sequence, position, "unfinished")

    def make_way(self) -> None:
        """Jobs run: a pass that has begun ends, and its blocks are back."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def step(self) -> None:
        """A step of a pass; nothing may be running. What goes wrong costs the sample, and nothing else."""
        sequence, position = self._waiting[0]
        if self._pass is None:
            self._pass = self._rescore(sequence)
        outcome: Outcome = "failed"
        differ = 0
        try:
            next(self._pass)
            return
        except StopIteration as done:
            outcome, differ = "rescored", done.value
        except Exception:
            traceback.print_exc()
        self._pass = None
        self._waiting.popleft()
        self._say(sequence, position, outcome, differ)

    def _say(self, sequence: Sequence, position: str, outcome: Outcome, differ: int = 0) -> None:
        greedy = sequence.sampling.greedy
        promise = promised(position, greedy=greedy, repeatable=self._repeatable)
        self._tell(Rescored(position, outcome, greedy, promise, sequence.num_output, differ))

    def _rescore(self, sequence: Sequence) -> Generator[None, None, int]:
        """How many tokens of an output differ from what full depth chooses; gives way between short steps.

        Raises:
            RuntimeError: full depth chooses nothing.
        """
        tokens, start = sequence.tokens, sequence.prompt_length
        rows = self._rows_at_once()
        differ = 0
        with closing(ForcedPass(self._engine, [tokens[:-1]], [root_of(sequence.source)])) as forced:
            yield from forced.steps(rows)
            for first in range(start, len(tokens), rows):
                some = range(first, min(first + rows, len(tokens)))
                chosen = self._choices(sequence, some, forced.blocks(0))
                differ += sum(tokens[place] != token for place, token in zip(some, chosen, strict=True))
                yield
        return differ

    def _choices(self, sequence: Sequence, places: range, blocks: Seq[int]) -> list[int]:
        executor = self._engine.executor
        asked = [score_row_in(blocks, sequence, place - 1) for place in places]
        tokens = [scored.token for scored in executor.score(executor.shape.num_segments, asked, frozenset())]
        chosen = [token for token in tokens if token is not None]
        if len(chosen) < len(tokens):
            raise RuntimeError("full depth chooses nothing where the output has a token")
        return chosen

    def _rows_at_once(self) -> int:
        """As many rows as go through a segment, or are scored, in a short time, or in twice that of a single row."""
        costs, rows = self._engine.costs, self._engine.config.max_num_batched_tokens
        lines = (*costs.segments, costs.checks[-1])
        while rows > 1 and any(line.price(rows) > max(STEP_SECONDS, 2 * line.price(1)) for line in lines):
            rows //= 2
        return rows
