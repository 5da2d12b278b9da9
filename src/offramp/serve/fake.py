"""An engine that computes nothing: for tests of the HTTP side, and to look at the pages without a model.

What it says follows from the prompt alone. Its outputs repeat the prompt's words, output number i from word i on, and
then end; where a JSON schema is asked for, they are the plainest value that satisfies it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from random import Random
from typing import Any

from offramp.errors import CacheTooSmall, EngineDown, InvalidParameter, OfframpError, PackError, QueueFull
from offramp.exits.calibration import read_risk, say_risk
from offramp.serve.fake_output import FakeOutput, begun, log_probs
from offramp.serve.positions import position_of
from offramp.serve.protocol import Dial, EngineInfo, EngineStats, Job, OnRescored, Outcome, Piece, State
from offramp.tokenizer import Tokenizer
from offramp.types.exits import LOSSLESS, ExitParams

RISKS = {"0.02": ExitParams(threshold=0.9), "task:0.05": ExitParams(threshold=0.8)}
"""The calibrations it has."""

BLOCK = 16
"""Tokens in a block of its KV cache."""


class FakeClient:
    """An `EngineClient` without an engine.

    Args:
        tokenizer: of the prompts; `byte_tokenizer()` needs no file.
        delay: seconds between the tokens of an output.
        load_seconds: from `start`, or from a crash, until it is ready.
        max_num_seqs, max_queue: jobs that run at once, and that may wait.
        max_model_len: the longest prompt with its output, in tokens.
        shadow, on_rescored: the share of jobs to rescore, at once, and who is told.
        max_source_len: the longest prompt of an encoder-decoder model; 0 for a decoder-only one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        model: str = "fake",
        num_layers: int = 12,
        exit_layers: tuple[int, ...] = (4, 8),
        delay: float = 0.0,
        load_seconds: float = 0.0,
        max_num_seqs: int = 8,
        max_queue: int = 64,
        max_model_len: int = 1024,
        shadow: float = 0.0,
        on_rescored: OnRescored = lambda rescored: None,
        max_source_len: int = 0,
    ) -> None:
        self.state: State = "starting"
        self.info: EngineInfo | None = None
        self.jobs: list[Job] = []
        """All jobs it was ever given."""
        self._tokenizer, self._delay, self._load_seconds, self._max_queue = tokenizer, delay, load_seconds, max_queue
        self._info = EngineInfo(
            model=model,
            executor="fake",
            dtype="int8",
            kv_dtype="float16",
            device="cpu",
            num_layers=num_layers,
            exit_layers=exit_layers,
            vocab_size=tokenizer.vocab_size,
            max_model_len=max_model_len,
            kv_tokens=max_num_seqs * max_model_len,
            max_num_seqs=max_num_seqs,
            pack="fake-pack",
            risks={name: params.kv for name, params in RISKS.items()},
            resolved={"lossless": asdict(LOSSLESS), **{name: asdict(params) for name, params in RISKS.items()}},
            max_source_len=max_source_len,
            source_tokens=max_num_seqs * max_source_len,
        )
        self._shadow, self._on_rescored, self._random = shadow, on_rescored, Random(0)
        self._slots = asyncio.Semaphore(max_num_seqs)
        self._changed = asyncio.Condition()
        self._life, self._lost = 0, False
        self._running = self._waiting = self._held_tokens = self._restarts = 0
        self._counts: Counter[str] = Counter()
        self._exit_tokens: Counter[int] = Counter()
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be ready after `load_seconds`."""
        self._loading = asyncio.create_task(self._load())

    async def wait_ready(self) -> EngineInfo:
        """Wait until it is ready.

        Raises:
            EngineDown: it is down for good.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "starting")
        if self.state != "ready":
            raise EngineDown("the fake engine is down")
        return self._info

    async def wait_lost(self) -> OfframpError:
        """Wait until it has crashed for good."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lost)
        return EngineDown("the fake engine is down")

    async def crash(self, *, restart: bool = True) -> None:
        """What runs ends in `EngineDown`; it is ready again after `load_seconds`, or is down."""
        self._life += 1
        self._lost = not restart
        await self._become("starting" if restart else "down")
        if restart:
            self._restarts += 1
            await self.start()

    async def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of a job, a token each; see `EngineClient`."""
        params = self._check(job)
        life, told = self._life, None
        drawn = self._random.random() < self._shadow and not job.echo_only
        async with self._place(job):
            if job.prompt_logprobs is not None:
                later = tuple(log_probs(token, job.prompt_logprobs, self._info.vocab_size) for token in job.prompt[1:])
                told = ((), *later)
            if job.echo_only:
                yield Piece(0, "", finish_reason="length", prompt_logprobs=told)
                return
            outputs = [FakeOutput(i, job, params, self._tokenizer, self._info) for i in range(job.sampling.n)]
            first = outputs[0]
            try:
                while outputs:
                    await asyncio.sleep(self._delay)
                    if life != self._life:
                        raise EngineDown("the engine's process ended before the request did", hint="send it again")
                    for output in list(outputs):
                        piece = output.step()
                        self._count(piece)
                        if piece.finish_reason is not None:
                            outputs.remove(output)
                        yield piece._replace(prompt_logprobs=told)
                        told = None
            finally:
                if drawn:
                    outcome: Outcome = "unfinished" if outputs else "rescored"
                    self._on_rescored(first.rescored(position_of(job.exit, RISKS), outcome))

    async def stats(self) -> EngineStats:
        """Counts of what it has said; its seconds are made up from them.

        Raises:
            EngineDown: it is not ready.
        """
        if self.state in ("starting", "down"):
            raise EngineDown(f"the engine is {self.state}")
        counts, used = self._counts, -(-self._held_tokens // BLOCK)
        parts = {"layers": 8, "checks": 1, "fill": 1, "top": 2, "other": 1}
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            kv_used_blocks=used,
            kv_total_blocks=max(used, self._info.kv_tokens // BLOCK),
            steps=counts["output_tokens"],
            cached_prompt_tokens=0,
            preemptions=0,
            exit_tokens=dict(self._exit_tokens),
            seconds={part: share * 1e-3 * counts["output_tokens"] for part, share in parts.items()},
            rss_bytes=2**28,
            restarts=self._restarts,
            **{name: counts[name] for name in COUNTED},
        )

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more jobs, wait for those that run, then be down."""
        if self._loading is not None:
            self._loading.cancel()
        await self._become("draining")
        with suppress(asyncio.TimeoutError):
            async with self._changed:
                await asyncio.wait_for(self._changed.wait_for(lambda: not self._held_tokens), drain_seconds)
        self._life += 1
        await self._become("down")

    async def _load(self) -> None:
        await asyncio.sleep(self._load_seconds)
        self.info = self._info
        await self._become("ready")

    async def _become(self, state: State) -> None:
        self.state = state
        async with self._changed:
            self._changed.notify_all()

    def _check(self, job: Job) -> ExitParams | None:
        """What the dial means for a job that can be served.

        Raises:
            InvalidParameter, CacheTooSmall, PackError, EngineDown, QueueFull: see `EngineClient.generate`.
        """
        self.jobs.append(job)
        size, room = begun(job, self._info), self._info.max_model_len
        if self.state != "ready" and not (job.goes_on and self.state == "draining"):
            raise EngineDown(f"the engine is {self.state}")
        if not size:
            raise InvalidParameter("the prompt is empty", param="prompt", hint="give at least one token")
        if size >= room:
            raise InvalidParameter(f"the prompt has {size} tokens, the context holds {room}", param="prompt")
        if size + (job.sampling.max_tokens or 0) > self._info.kv_tokens:
            raise CacheTooSmall(f"the request may grow beyond the {self._info.kv_tokens} tokens of the KV cache")
        params = _resolve(job.exit)
        if self._waiting >= self._max_queue and self._slots.locked():
            raise QueueFull(f"{self._waiting} requests wait already", hint="try again later")
        return params

    @asynccontextmanager
    async def _place(self, job: Job) -> AsyncGenerator[None, None]:
        """A place among those that run, after waiting for it."""
        self._held_tokens += len(job.prompt)
        self._waiting += 1
        done = False
        try:
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
            self._running += 1
            self._counts["prompt_tokens"] += len(job.prompt)
            try:
                yield
                done = True
            finally:
                self._running -= 1
                self._slots.release()
        finally:
            self._held_tokens -= len(job.prompt)
            self._counts["aborted"] += not done
            async with self._changed:
                self._changed.notify_all()

    def _count(self, piece: Piece) -> None:
        self._counts["output_tokens"] += len(piece.token_ids)
        self._exit_tokens.update(piece.exit_layers)
        if piece.report is not None:
            for name, value in _sums(piece.report):
                self._counts[name] += value


COUNTED = (
    "prompt_tokens",
    "output_tokens",
    "aborted",
    "drafts_proposed",
    "drafts_accepted",
    "layers_run",
    "layers_filled",
    "layers_skipped",
)


def _sums(report: Any) -> Iterator[tuple[str, int]]:
    for name in COUNTED[3:]:
        value = getattr(report, name)
        yield name, value if isinstance(value, int) else sum(value)


def _resolve(dial: Dial) -> ExitParams | None:
    """What a position of the dial means.

    Raises:
        InvalidParameter: no position of the dial.
        PackError: a risk without a calibration.
    """
    if isinstance(dial, ExitParams):
        return dial
    if dial in ("off", "lossless"):
        return LOSSLESS if dial == "lossless" else None
    try:
        risk = say_risk(*read_risk(str(dial)))
    except ValueError:
        raise InvalidParameter(f"`exit` cannot be {dial!r}", param="exit") from None
    if risk not in RISKS:
        raise PackError(f"there is no calibration for a risk of {risk}, only for {', '.join(RISKS)}")
    return RISKS[risk]
