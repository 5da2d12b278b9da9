"""The engine's process: takes jobs, steps, and sends what is new. `ProcessClient` starts it and holds the other end.

It ends when the pipe is closed, so that it never outlives the server. What goes wrong in a step ends whom the step was
about: those who brought a criterion that raised, else everybody it moved, each with the finish reason `error`. The step
has been undone, and the others go on. What goes wrong elsewhere ends the process, and the server starts another.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from time import monotonic, perf_counter

from offramp.errors import EngineDown, OfframpError
from offramp.exits.calibration import dial_positions
from offramp.llm.dial import resolve_dial
from offramp.llm.llm import LLM
from offramp.serve.counters import Counters
from offramp.serve.messages import Ask, Cancel, FromChild, Link, Load, LoadFailed, News, Ready, Refused, Submit, Told
from offramp.serve.protocol import EngineInfo, Job, Piece
from offramp.serve.shadow import Shadow

QUIET = 0.1
"""Seconds without a job before anything else is done: the next one of a conversation comes sooner."""


class Worker:
    """Jobs on an engine. `send` takes what is to be told to the server.

    While no job runs or waits, and has not for a while, there is time for `chores`, each of which is done once, and
    then for rescoring what `shadow` has drawn.
    """

    def __init__(
        self,
        llm: LLM,
        send: Callable[[FromChild], None],
        shadow: Shadow | None = None,
        chores: Iterable[Callable[[], object]] = (),
    ) -> None:
        self._session, self._engine, self._send = llm.session, llm.engine, send
        self._counters, self._shadow = Counters(), shadow or Shadow(llm, 0.0, send)
        self._chores, self._busy_at = deque(chores), monotonic()
        self._jobs: dict[int, list[int]] = {}  # the numbers of the outputs that have not ended, by the job's
        self._outputs: dict[int, tuple[int, int]] = {}  # an output's job, and its index there

    @property
    def has_work(self) -> bool:
        """Whether jobs run or wait."""
        return self._engine.has_work

    @property
    def patience(self) -> float | None:
        """Seconds until there is a step to do: 0 for at once, None while nothing is to be done."""
        if self._engine.has_work:
            return 0.0
        waits = self._chores or self._shadow.has_work
        return max(0.0, self._busy_at + QUIET - monotonic()) if waits else None

    def handle(self, message: Submit | Cancel | Ask) -> None:
        """Do what the server asks."""
        if isinstance(message, Submit):
            self._submit(message.number, message.job)
        elif isinstance(message, Ask):
            self._send(Told(message.number, self._counters.stats(self._engine)))
        else:
            for number in list(self._jobs.get(message.number, ())):
                self._engine.abort(number)
                self._drop(number)

    def step(self) -> None:
        """One step of the engine, whose news go to the server; without jobs, a chore, or a step of rescoring."""
        if not self._engine.has_work:
            self._do_chore() if self._chores else self._shadow.step()
            return
        self._shadow.make_way()
        self._busy_at = monotonic()
        start = perf_counter()
        try:
            result = self._session.step()
        except Exception as error:
            self._counters.broke_off(perf_counter() - start)
            self._fail(error)
            return
        self._counters.stepped(result, perf_counter() - start)
        for event in result.events:
            if event.output_index == 0 and self._outputs[event.sequence][1] == 0:
                self._counters.prompt_read(self._engine.sequences[event.sequence])
        self._tell([*(event.sequence for event in result.events), *(ended.sequence for ended in result.finished)])

    def _do_chore(self) -> None:
        try:
            self._chores.popleft()()
        except Exception:  # nobody has asked for it
            traceback.print_exc()

    def _submit(self, number: int, job: Job) -> None:
        try:
            outputs = self._session.submit(
                list(job.prompt),
                job.sampling,
                job.exit,
                prompt_logprobs=job.prompt_logprobs,
                echo_only=job.echo_only,
            )
        except OfframpError as error:
            self._send(Refused(number, error))
            return
        except Exception as error:
            traceback.print_exc()
            self._send(Refused(number, EngineDown(f"the engine could not take the request: {error!r}")))
            return
        if not job.echo_only:
            self._shadow.submitted(outputs[0], job.exit)
        self._jobs[number] = outputs
        self._outputs.update({output: (number, index) for index, output in enumerate(outputs)})

    def _fail(self, error: Exception) -> None:
        """A step was undone because of `error`: those who may be at fault end."""
        suspects = self._engine.suspects
        if not suspects:
            raise error
        traceback.print_exception(error)
        self._engine.check_integrity()
        for number in suspects:
            self._engine.abort(number, f"a step of the engine broke off: {error!r}")
        self._tell(suspects)

    def _tell(self, numbers: list[int] | tuple[int, ...]) -> None:
        """Send what is new of some outputs; those that have ended are forgotten."""
        pieces = []
        for number in dict.fromkeys(numbers):
            chunk = self._session.read(number)
            assert chunk is not None
            job, index = self._outputs[number]
            piece = Piece(
                index=index,
                text=chunk.text,
                token_ids=chunk.token_ids,
                exit_layers=chunk.exit_layers,
                confidences=chunk.confidences,
                logprobs=chunk.logprobs,
                finish_reason=chunk.finish_reason,
                report=chunk.output.report if chunk.output else None,
                prompt_logprobs=chunk.prompt_logprobs,
                error=chunk.error,
            )
            pieces.append((job, piece))
            if chunk.finish_reason is not None:
                self._drop(number)
        self._send(News(tuple(pieces)))

    def _drop(self, number: int) -> None:
        """Forget an output that has ended."""
        sequence = self._engine.sequences[number]
        job, index = self._outputs.pop(number)
        if index == 0 and sequence.accepted == sequence.prompt_length:
            self._counters.prompt_read(sequence)
        self._counters.ended(sequence)
        self._shadow.ended(sequence)
        self._session.drop(number)
        self._jobs[job].remove(number)
        if not self._jobs[job]:
            del self._jobs[job]


def describe(llm: LLM, exits: object) -> EngineInfo:
    """What does not change while the engine runs; `exits` is what it was given as such."""
    shape, backend = llm.engine.executor.shape, llm.backend
    positions = dial_positions(llm.pack.calibrations, llm.calibration_key)
    lossless = resolve_dial("lossless", llm.pack, llm.calibration_key) if shape.exit_layers else None
    resolved = positions if lossless is None else {"lossless": lossless, **positions}
    return EngineInfo(
        model=llm.name,
        executor=backend.executor,
        dtype=backend.dtype,
        kv_dtype=backend.kv_dtype,
        device=backend.device,
        num_layers=shape.num_layers,
        exit_layers=shape.exit_layers,
        vocab_size=shape.vocab_size,
        max_model_len=shape.max_model_len,
        kv_tokens=shape.num_blocks * shape.block_size,
        max_num_seqs=llm.engine.config.max_num_seqs,
        pack=str(exits) if isinstance(exits, str | Path) else None,
        risks={position: params.kv for position, params in positions.items()},
        resolved={position: asdict(params) for position, params in resolved.items()},
        max_source_len=0 if shape.encoder is None else shape.encoder.max_source_len,
        source_tokens=0 if shape.encoder is None else shape.encoder.num_blocks * shape.block_size,
    )


def end_with(pipe: socket.socket) -> None:
    """End this process, whatever it is at, as soon as the other end of the pipe is closed."""
    poll = select.poll()
    poll.register(pipe.fileno(), 0)  # nothing but a hang-up
    poll.poll()
    os._exit(0)


def run(link: Link) -> None:
    """Load what the first message says, then do what the others say.

    Raises:
        EOFError, OSError: the pipe is closed.
    """
    (load,) = link.receive(timeout=None)
    assert isinstance(load, Load)
    try:
        llm = LLM(**load.options)
        llm.session.check_dial(load.exit)
    except OfframpError as error:
        link.send(LoadFailed(error))
        link.finish()
        return
    worker = Worker(llm, link.send, Shadow(llm, load.shadow, link.send), [llm.session.prepare_schemas])
    link.send(Ready(describe(llm, load.options.get("exits"))))
    while True:
        for message in link.receive(worker.patience):
            assert not isinstance(message, Load)
            worker.handle(message)
        if worker.patience == 0:
            worker.step()


def main(pipe: socket.socket) -> None:
    """The life of the process."""
    threading.Thread(target=end_with, args=(pipe,), daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # no news to whoever closed the pipe
        run(Link(pipe))


if __name__ == "__main__":
    # A terminal signals the whole group; when to stop is the server's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(socket.socket(fileno=int(sys.argv[1])))
