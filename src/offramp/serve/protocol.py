"""What the HTTP side and the engine's process say to each other. The HTTP side knows of the engine only what is here.

All values are frozen and can be pickled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from offramp.errors import OfframpError
from offramp.types.exits import ExitParams
from offramp.types.output import ExitReport, FinishReason
from offramp.types.output import LogProbs as LogProbs
from offramp.types.sampling import SamplingParams

State = Literal["starting", "ready", "draining", "down"]
"""`starting`: the model is being loaded, for the first time or after a crash; `draining`: running requests are finished
and no new one is begun; `down`: the engine cannot be started, or was closed."""

Dial = str | float | ExitParams
"""`off`, `lossless`, a risk such as 0.02 or `task:0.02`, or exit parameters."""


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to generate for.

    Args:
        id: unique among the jobs that run.
        prompt: token ids.
        sampling: with `sampling.n` outputs.
        exit: the dial's position.
        prompt_logprobs: None, or how many likely tokens to tell beside each prompt token's own log-probability, which
            is computed at full depth (0: its own alone).
        echo_only: nothing is generated; only `prompt_logprobs` are wanted. Each output is one empty piece that finishes
            with `length`. The prompt may fill the context.
        goes_on: its request has output already, so an engine that is draining takes it all the same.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    exit: Dial = "off"
    prompt_logprobs: int | None = None
    echo_only: bool = False
    goes_on: bool = False


class Piece(NamedTuple):
    """What is new of one output of a job: complete characters only.

    `index` counts the job's outputs. `exit_layers`, `confidences` and `logprobs` have an entry for each of `token_ids`;
    `logprobs` is None where none were asked for. The last piece of an output has `finish_reason` and `report`. The very
    first piece of a job has its `prompt_logprobs`, if asked for: an entry for each prompt token, that of the first is
    empty. `error` says what went wrong where `finish_reason` is `error`.
    """

    index: int  # type: ignore[assignment]  # nobody asks a piece for its `tuple.index`
    text: str
    token_ids: tuple[int, ...] = ()
    exit_layers: tuple[int, ...] = ()
    confidences: tuple[float | None, ...] = ()
    logprobs: tuple[LogProbs, ...] | None = None
    finish_reason: FinishReason | None = None
    report: ExitReport | None = None
    prompt_logprobs: tuple[LogProbs, ...] | None = None
    error: str | None = None


Outcome = Literal["rescored", "unfinished", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Rescored:
    """What became of a job that was drawn for rescoring; each has one, whatever comes.

    Args:
        position: the dial's, as `offramp.serve.positions` has it.
        outcome: `rescored`; `unfinished`: cancelled, or it broke off; `dropped`: too many waited for the engine to be
            idle; `failed`: rescoring broke off.
        greedy: whether the likeliest token was always taken.
        promised: the expected loss that the position promises, at most; None for none.
        tokens: generated for it, if it was rescored.
        differ: those of them that one exact pass at full depth would have chosen otherwise.
    """

    position: str
    outcome: Outcome
    greedy: bool = True
    promised: float | None = None
    tokens: int = 0
    differ: int = 0

    @property
    def label(self) -> str:
        """What metrics call it."""
        return self.position if self.greedy else f"{self.position} sampled"


OnRescored = Callable[[Rescored], None]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What does not change while an engine runs.

    `risks` are the positions of the dial that the exit pack has calibrations for, as `read_risk` reads them (`0.02`,
    `task:0.05`), with the KV policy of each; `resolved` is, for a dial position, the exit parameters that it means.
    Where there is an encoder, prompts are its sources, of at most `max_source_len` tokens, and `source_tokens` of them
    fit; both are 0 for a decoder-only model.
    """

    model: str
    executor: str
    dtype: str
    kv_dtype: str
    device: str
    num_layers: int
    exit_layers: tuple[int, ...]
    vocab_size: int
    max_model_len: int
    kv_tokens: int
    max_num_seqs: int
    pack: str | None
    risks: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_source_len: int = 0
    source_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A look at the engine. Counts and seconds are since its process began; `seconds` is by what it was spent on:
    encoder, layers, checks, fill, top, other (scheduling and Python).

    `exit_tokens`: output tokens by the layer that proposed them. `layers_run`, `layers_filled` and `layers_skipped` are
    summed over finished outputs' tokens.
    """

    running: int
    waiting: int
    kv_used_blocks: int
    kv_total_blocks: int
    steps: int
    prompt_tokens: int
    cached_prompt_tokens: int
    output_tokens: int
    preemptions: int
    aborted: int
    drafts_proposed: int
    drafts_accepted: int
    layers_run: int
    layers_filled: int
    layers_skipped: int
    exit_tokens: Mapping[int, int]
    seconds: Mapping[str, float]
    rss_bytes: int
    restarts: int = 0
    source_used_blocks: int = 0
    source_total_blocks: int = 0


class EngineClient(Protocol):
    """An engine, wherever it runs. One event loop uses it."""

    @property
    def state(self) -> State:
        """Whether it takes jobs."""

    @property
    def info(self) -> EngineInfo | None:
        """None before it has been ready for the first time."""

    async def start(self) -> None:
        """Begin to load; returns at once. `state` says how far it is."""

    async def wait_ready(self) -> EngineInfo:
        """Wait until it takes jobs.

        Raises:
            OfframpError: it cannot be started, with the reason.
        """

    async def wait_lost(self) -> OfframpError:
        """Wait until it is down without having been closed, and say why."""

    def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of a job's outputs, as they come. Closing the generator cancels the job within one step.

        Raises:
            InvalidParameter, Unsupported, CacheTooSmall, PackError: it can never be served; before the first piece.
            QueueFull: too many wait; before the first piece.
            EngineDown: the engine is not ready, or its process ended meanwhile.
        """

    async def stats(self) -> EngineStats:
        """A look at the engine now.

        Raises:
            EngineDown: there is none.
        """

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more jobs, wait so long for those that run, then end the process."""
