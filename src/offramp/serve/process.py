"""An `EngineClient` whose engine runs in a process of its own: HTTP never stalls a step, and a crash is survived."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from offramp.errors import EngineDown, OfframpError
from offramp.serve.child import read_message, reap, start_child
from offramp.serve.messages import (
    Ask,
    Cancel,
    FromChild,
    Load,
    LoadFailed,
    News,
    Ready,
    Refused,
    Submit,
    Told,
    pack,
)
from offramp.serve.protocol import Dial, EngineInfo, EngineStats, Job, OnRescored, Piece, Rescored, State

MAX_FAILED_STARTS = 3
"""After so many children in a row that ended before they were ready, no more is started."""

BACK_OFF, MAX_BACK_OFF, REMEMBER = 0.25, 8.0, 60.0
"""Seconds to wait before a start where a child has ended within the last `REMEMBER` seconds before, too; doubled for
each further one, up to a limit. The first that ends is replaced at once."""

AGAIN = "try again in a few seconds"

Inbox = asyncio.Queue[Piece | OfframpError]


class ProcessClient:
    """See `EngineClient`. `options` are the keyword arguments of `LLM`; they have to be values that can be pickled. The
    share `shadow` of jobs is rescored; `on_rescored` is told what became of each. Jobs will have the dial at `exit`: an
    engine that cannot serve that is not started.

    Pieces wait here until they are read, each job's for itself: a slow reader holds up nobody.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        shadow: float = 0.0,
        on_rescored: OnRescored = lambda rescored: None,
        exit: Dial = "off",
    ) -> None:
        self._load, self._on_rescored = Load(dict(options), shadow, exit), on_rescored
        self._state: State = "starting"
        self._info: EngineInfo | None = None
        self._reason: OfframpError = EngineDown("the engine was not started", hint="call `start` first")
        self._settled = asyncio.Event()  # the state is other than `starting`
        self._lost = asyncio.Event()
        self._idle = asyncio.Event()  # set when the last job ends
        self._task: asyncio.Task[None] | None = None
        self._pipe: asyncio.StreamWriter | None = None  # to a child that is ready
        self._numbers = itertools.count()
        self._jobs: dict[int, Inbox] = {}
        self._asked: dict[int, asyncio.Future[EngineStats]] = {}
        self._ends: list[float] = []  # when children ended
        self._failed_starts = self._restarts = 0

    @property
    def state(self) -> State:
        """Whether it takes jobs."""
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        """None before it has been ready for the first time."""
        return self._info

    async def start(self) -> None:
        """Begin to load; returns at once."""
        assert self._task is None, "started twice"
        self._reason = EngineDown("the engine is being started", hint=AGAIN)
        self._task = asyncio.create_task(self._keep_running(pack(self._load)))

    async def wait_ready(self) -> EngineInfo:
        """Wait until it takes jobs.

        Raises:
            OfframpError: it cannot be started, with the reason.
        """
        await self._settled.wait()
        self._check_ready()
        assert self._info is not None
        return self._info

    async def wait_lost(self) -> OfframpError:
        """Wait until it is down without having been closed, and say why."""
        await self._lost.wait()
        return self._reason

    async def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of a job's outputs, as they come; see `EngineClient.generate`."""
        if not (job.goes_on and self._state == "draining" and self._pipe is not None):
            self._check_ready()
        number, inbox = next(self._numbers), Inbox()
        message = pack(Submit(number, job))
        self._jobs[number] = inbox
        self._idle.clear()
        left = job.sampling.n
        try:
            self._write(message)
            while left:
                piece = await inbox.get()
                if isinstance(piece, OfframpError):
                    left = 0
                    raise piece.with_traceback(None)
                left -= piece.finish_reason is not None
                yield piece
        finally:
            del self._jobs[number]
            if left:
                self._write(pack(Cancel(number)))
            if not self._jobs:
                self._idle.set()

    async def stats(self) -> EngineStats:
        """A look at the engine now.

        Raises:
            EngineDown: there is none.
        """
        if self._pipe is None:
            raise self._reason.with_traceback(None)
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._write(pack(Ask(number)))
        try:
            return replace(await self._asked[number], restarts=self._restarts)
        finally:
            del self._asked[number]

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more jobs, wait so long for those that run, then end the process. May be called twice."""
        if self._state != "down":
            self._settle("draining", EngineDown("the engine is being shut down", hint="try again later"))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until_idle(), drain_seconds)
        self._settle("down", EngineDown("the engine was shut down", hint="start it again"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _until_idle(self) -> None:
        while self._jobs:  # a request may have begun its next job meanwhile
            await self._idle.wait()

    def _check_ready(self) -> None:
        if self._state != "ready":
            raise self._reason.with_traceback(None)  # it may be raised often

    def _settle(self, state: State, reason: OfframpError) -> None:
        if state == "down" and self._state not in ("draining", "down"):
            self._lost.set()
        self._state, self._reason = state, reason
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()

    def _write(self, message: bytes) -> None:
        """To the child, if there is one; where it is gone its jobs know."""
        if self._pipe is not None:
            self._pipe.write(message)

    # The child

    async def _keep_running(self, load: bytes) -> None:
        """Start the child, and start it again whenever it ends."""
        while self._state not in ("draining", "down"):
            try:
                end = await self._run_child(load)
            except OfframpError as error:
                self._settle("down", error)
                return
            except Exception as error:  # a bug of ours: better no engine than one that nobody listens to
                self._settle("down", EngineDown(f"the connection to the engine broke off: {error!r}"))
                raise
            if self._failed_starts == MAX_FAILED_STARTS:
                told = f"the engine's process ended before it was ready, {MAX_FAILED_STARTS} times ({end})"
                self._settle("down", EngineDown(told, hint="see what it wrote to standard error"))
                return
            now = monotonic()
            self._ends = [*(at for at in self._ends if now - at < REMEMBER), now]
            if len(self._ends) > 1:
                await asyncio.sleep(min(BACK_OFF * 2.0 ** (len(self._ends) - 2), MAX_BACK_OFF))
            self._restarts += 1

    async def _run_child(self, load: bytes) -> str:
        """One child from its start to its end, however it comes; returns how it ended.

        Raises:
            OfframpError: it could not load.
        """
        self._failed_starts += 1
        ours, theirs = socket.socketpair()
        child = pipe = None
        try:
            child = await start_child(theirs)
            reader, pipe = await asyncio.open_unix_connection(sock=ours)
            pipe.write(load)
            while (message := await read_message(reader)) is not None:
                if isinstance(message, Ready):
                    self._pipe = pipe
                self._take(message)
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        finally:
            (pipe or ours).close()
            self._pipe = None
            self._lose_jobs()
            code = None if child is None else await reap(child)
        return f"signal {-code}" if code and code < 0 else f"code {code}"

    def _take(self, message: FromChild) -> None:
        if isinstance(message, News):
            for number, piece in message.pieces:
                if number in self._jobs:
                    self._jobs[number].put_nowait(piece)
        elif isinstance(message, Refused):
            if message.number in self._jobs:
                self._jobs[message.number].put_nowait(message.error)
        elif isinstance(message, Told):
            if message.number in self._asked and not self._asked[message.number].done():
                self._asked[message.number].set_result(message.stats)
        elif isinstance(message, Rescored):
            self._on_rescored(message)
        elif isinstance(message, LoadFailed):
            raise message.error
        else:
            assert isinstance(message, Ready)
            self._info, self._failed_starts = message.info, 0
            if self._state == "starting":
                self._settle("ready", EngineDown("the engine is ready"))

    def _lose_jobs(self) -> None:
        """The child is gone, and with it all that was asked of it."""
        lost = self._reason
        if self._state not in ("draining", "down"):
            lost = EngineDown("the engine's process ended and is being restarted", hint=AGAIN)
            self._settle("starting", lost)
        for inbox in self._jobs.values():
            inbox.put_nowait(lost)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(lost)
