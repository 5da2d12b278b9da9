"""Engines in processes of their own for tests, on an event loop that runs in a thread."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save_file

from offramp import LLM
from offramp.serve.messages import FromChild, News, Submit
from offramp.serve.process import ProcessClient
from offramp.serve.protocol import EngineStats, Job, Piece, Rescored
from offramp.serve.shadow import Shadow
from offramp.serve.worker import Worker
from offramp.types.executor import Executor
from offramp.types.sampling import SamplingParams
from tests.tokenizer.toys import BYTE_VOCAB, byte_level
from tests.toy import toy_spec, toy_weights

T = TypeVar("T")

NAN = 7
"""A token whose embedding is not finite: whatever reads it is not either."""

LONG = 4096
SPEC = toy_spec(vocab_size=len(BYTE_VOCAB), max_model_len=LONG)
OPTIONS: dict[str, Any] = {
    "exits": [2, 4],
    "dtype": "float32",
    "kv_tokens": 16384,
    "max_num_seqs": 4,
    "max_queue": 3,
    "threads": 1,
    "profitability": False,
}


def toy_options(folder: Path, *, poisoned: bool = True) -> dict[str, Any]:
    """A byte-level toy model in `folder`, with exits at layers 2 and 4 of 6, four places and a queue of three.

    `poisoned`: with the token `NAN`.
    """
    weights = toy_weights(SPEC)
    if poisoned:
        weights["model.embed_tokens.weight"][NAN] = np.nan
    save_file(weights, folder / "model.safetensors")
    byte_level().save(str(folder / "tokenizer.json"))
    config = {
        "model_type": SPEC.family,
        "num_hidden_layers": SPEC.num_layers,
        "hidden_size": SPEC.hidden_size,
        "intermediate_size": SPEC.intermediate_size,
        "num_attention_heads": SPEC.num_heads,
        "num_key_value_heads": SPEC.num_kv_heads,
        "head_dim": SPEC.head_dim,
        "vocab_size": SPEC.vocab_size,
        "max_position_embeddings": SPEC.max_model_len,
        "rms_norm_eps": SPEC.rms_norm_eps,
        "rope_theta": SPEC.rope.theta,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return {"model": str(folder), **OPTIONS}


class Running:
    """A `ProcessClient` and the event loop that uses it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.client = ProcessClient(options)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop do something."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def pieces(self, job: Job) -> list[Piece]:
        """All of a job."""
        return self.run(collect(self.client.generate(job)))

    def stats(self) -> EngineStats:
        return self.run(self.client.stats())

    def close(self) -> None:
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class AtWork:
    """A worker in this process, and what it has sent. Every job is drawn for rescoring where `shadow` is 1."""

    def __init__(self, llm: LLM, shadow: float = 0.0) -> None:
        self.engine = llm.engine
        self.sent: list[FromChild] = []
        self.submitted = 0
        self.worker = Worker(llm, self.sent.append, Shadow(llm, shadow, self.sent.append))

    def submit(self, *jobs: Job) -> None:
        """Jobs with the numbers 0, 1 and so on."""
        for one in jobs:
            self.worker.handle(Submit(self.submitted, one))
            self.submitted += 1

    def finish(self) -> None:
        while self.worker.has_work:
            self.worker.step()
        self.check_idle()

    def rescore(self) -> list[Rescored]:
        """What became of all jobs that were drawn, once those that wait have been rescored."""
        while self.worker.patience is not None:
            self.worker.step()
        self.check_idle()
        return [message for message in self.sent if isinstance(message, Rescored)]

    def check_idle(self) -> None:
        """Nothing is left of any job."""
        self.engine.check_integrity()
        assert not self.engine.sequences and self.engine.pool.num_free == self.engine.pool.num_blocks
        sources = self.engine.scheduler.sources
        assert sources is None or sources.num_free == sources.num_blocks

    def pieces(self, number: int) -> list[Piece]:
        news = [message for message in self.sent if isinstance(message, News)]
        return [piece for message in news for job, piece in message.pieces if job == number]

    def tokens(self, number: int) -> list[int]:
        return [token for piece in self.pieces(number) for token in piece.token_ids]


class Breaking:
    """An executor of which the next call of `name` fails."""

    def __init__(self, executor: Executor, name: str) -> None:
        self.executor, self.name = executor, name

    def __getattr__(self, name: str) -> Any:
        if name != self.name:
            return getattr(self.executor, name)
        self.name = ""
        raise MemoryError("no room")


async def collect(pieces: AsyncGenerator[Piece, None]) -> list[Piece]:
    return [piece async for piece in pieces]


def job(prompt: Iterable[int], number: int = 0, **more: Any) -> Job:
    """A job; what `Job` does not know are sampling parameters."""
    own = {name: more.pop(name) for name in list(more) if name in Job.__dataclass_fields__}
    return Job(f"job-{number}", tuple(prompt), SamplingParams(**more), **own)


def rescored(llm: LLM, *prompts: tuple[int, ...], exit: Any, **sampling: Any) -> list[Rescored]:
    """What rescoring says of the outputs for some prompts, one after the other."""
    at_work = AtWork(llm, shadow=1.0)
    for number, prompt in enumerate(prompts):
        at_work.submit(job(prompt, number, exit=exit, **sampling))
        at_work.finish()
    return at_work.rescore()


def endless(number: int = 0, **more: Any) -> Job:
    """A job that goes on for thousands of steps."""
    return job((65, 66, 67), number, max_tokens=LONG - 8, ignore_eos=True, **more)


def children() -> list[int]:
    """The processes that this one has started and not yet reaped, zombies included."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == os.getpid():
                found.append(int(folder.name))
    return found


def engine_processes() -> list[int]:
    """The children that are engines."""
    return [pid for pid in children() if b"offramp.serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
