"""Requests in flight: from prompts to the engine, from its events to outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, TypeVar

from offramp.config import EngineConfig
from offramp.engine.costs import CostModel
from offramp.engine.engine import Engine
from offramp.engine.plan import StepResult
from offramp.engine.request import Request, StopCheck
from offramp.engine.trace import TraceRecorder
from offramp.engine.validate import check_exit
from offramp.errors import InvalidParameter, TraceError, Unsupported
from offramp.exits.calibration import CalibrationKey
from offramp.exits.pack import ExitPack
from offramp.llm.dial import Dial, resolve_dial
from offramp.llm.record import Record
from offramp.llm.schema import SchemaCompiler
from offramp.tokenizer import Tokenizer
from offramp.types.executor import Executor
from offramp.types.output import Chunk, Output
from offramp.types.sampling import SamplingParams

OnProgress = Callable[[int, int, int, float], None]
"""Called after every step: outputs done, outputs in all, tokens so far, their mean exit layer."""

T = TypeVar("T")


@dataclass
class Tally:
    """How far the outputs of one call of `run` have come: kept as events arrive, not counted anew after every step."""

    done: int = 0
    tokens: int = 0
    layers: int = 0


class Session:
    """An engine with the records of what runs on it. `trace` is a file for exit traces."""

    def __init__(
        self,
        executor: Executor,
        config: EngineConfig,
        costs: CostModel,
        tokenizer: Tokenizer,
        pack: ExitPack,
        key: CalibrationKey,
        trace: Path | None = None,
    ) -> None:
        self.tokenizer, self.pack, self.key = tokenizer, pack, key
        self._trace_file = None if trace is None else _open_trace(trace)
        self._recorder = None if trace is None else TraceRecorder()
        on_test = None if self._recorder is None else self._recorder.record
        self.engine = Engine(executor, config, costs, on_test=on_test)
        self._schemas = SchemaCompiler(tokenizer, executor.shape)
        self._records: dict[int, Record] = {}
        self._tallies: dict[int, Tally] = {}
        self._left: deque[int] = deque()  # outputs nobody wants any more, to be dropped once the engine is not at work
        self._at_work = self._closed = False

    def close(self) -> None:
        """End everything that runs and close the trace. May be called twice."""
        self._closed = True
        for number in list(self._records):
            self.drop(number)
        if self._trace_file is not None:
            self._trace_file.close()

    def prepare_schemas(self) -> None:
        """Do now what the first schema would wait for: part of a second."""
        self._schemas.prepare()

    def check_dial(self, exit: Dial) -> None:
        """Whether requests can have the dial there.

        Raises:
            InvalidParameter, Unsupported, PackError: they cannot.
        """
        params = resolve_dial(exit, self.pack, self.key)
        if params is not None:
            check_exit(params, self.engine.executor, self.engine.config)

    def submit(
        self,
        prompt: list[int],
        sampling: SamplingParams,
        exit: Dial,
        *,
        prompt_logprobs: int | None = None,
        echo_only: bool = False,
        stop_check: StopCheck | None = None,
    ) -> list[int]:
        """Queue a prompt, which is the source where there is an encoder; returns the numbers of its outputs.

        For `prompt_logprobs` and `echo_only` see `Request`; `stop_check` is for one output.

        Raises:
            InvalidParameter, Unsupported, CacheTooSmall, PackError, MissingDependency: it can never be served.
            QueueFull: too many wait.
        """
        if self._closed:
            raise Unsupported("this LLM is closed", hint="make a new one")
        shape = self.engine.executor.shape
        stop_ids = () if sampling.ignore_eos else shape.eos_token_ids
        ends = frozenset((*stop_ids, *sampling.stop_token_ids))
        before = prompt if shape.encoder is None else ()
        records = [Record(i, self.tokenizer, sampling, ends, stop_check, before) for i in range(sampling.n)]
        params = resolve_dial(exit, self.pack, self.key)
        checks = [record.push_token for record in records]
        schema = sampling.json_schema
        constraints = () if schema is None else self._schemas.constraints(schema, sampling.n)
        request = Request(prompt, sampling, params, checks, constraints, prompt_logprobs, echo_only)
        if shape.encoder is not None:
            request = replace(request, prompt=(), source=prompt)
        try:
            with self._working():
                numbers = self.engine.submit(request)
        except InvalidParameter as error:
            if error.param == "source":
                error.param = "prompt"  # as it is called here
            raise
        self._records.update(zip(numbers, records, strict=True))
        return numbers

    def step(self) -> StepResult:
        """One step of the engine; its events go to their records, which then have something to read."""
        with self._working():
            result = self.engine.step()
            for event in result.events:
                self._records[event.sequence].push_event(event)
                tally = self._tallies.get(event.sequence)
                if tally is not None:
                    tally.tokens += 1
                    tally.layers += event.exit_layer
            for finished in result.finished:
                if finished.reason != "error":  # what broke off may be the text itself
                    self._records[finished.sequence].finish()
                if finished.sequence in self._tallies:
                    self._tallies[finished.sequence].done += 1
        return result

    @contextmanager
    def _working(self) -> Generator[None, None, None]:
        """While the engine works nothing is dropped under its hands."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False
            while self._left:
                self.leave(self._left.popleft())

    def read(self, number: int) -> Chunk | None:
        """What is new of an output since the last call; None if nothing is. Writes the trace of an ended one."""
        sequence = self.engine.sequences[number]
        chunk = self._records[number].read(sequence)
        if sequence.finish_reason is not None:
            self._write_trace(number)
        return chunk

    def holds(self, number: int) -> bool:
        """Whether an output is neither cancelled nor taken."""
        return number in self._records

    def leave(self, number: int) -> None:
        """Drop an output, unless that has been done, as soon as the engine is not at work. May be called at any time: a
        stream that is in a cycle ends when the collector finds it, and that may be in the middle of a step."""
        if self._at_work:
            self._left.append(number)
        elif self.holds(number):
            self.drop(number)

    def drop(self, number: int) -> None:
        """Forget an output, wherever it is."""
        del self._records[number]
        self._tallies.pop(number, None)
        self.engine.abort(number)
        self.engine.forget(number)
        if self._recorder is not None:
            self._recorder.drop(number)

    def _write_trace(self, number: int) -> None:
        if self._recorder is not None and self._trace_file is not None:
            self._trace_file.write(self._recorder.line(self.engine.sequences[number]) + "\n")
            self._trace_file.flush()

    def _collect(self, number: int) -> Output:
        self._write_trace(number)
        return self._records[number].output(self.engine.sequences[number])

    def _collect_group(self, numbers: list[int]) -> Output:
        first, *others = [self._collect(n) for n in numbers]
        return replace(first, alternatives=tuple(others)) if others else first

    def run(
        self,
        prompts: list[list[int]],
        sampling: SamplingParams | Sequence[SamplingParams] | None,
        exit: Dial | Sequence[Dial],
        on_progress: OnProgress | None,
    ) -> list[Output]:
        """Generate for all prompts; whatever happens, nothing of them stays behind."""
        samplings = _one_each(sampling or SamplingParams(), prompts, "sampling")
        dials: list[Dial] = _one_each(exit, prompts, "exit")
        groups: list[list[int]] = []
        try:
            for prompt, params, dial in zip(prompts, samplings, dials, strict=True):
                groups.append(self.submit(prompt, params, dial))
            numbers = [n for group in groups for n in group]
            tally = Tally()
            self._tallies.update(dict.fromkeys(numbers, tally))
            while tally.done < len(numbers):
                self.step()
                if on_progress is not None:
                    on_progress(tally.done, len(numbers), tally.tokens, tally.layers / max(tally.tokens, 1))
            return [self._collect_group(group) for group in groups]
        finally:
            for number in [n for group in groups for n in group]:
                self.drop(number)

    def stream(
        self, prompt: list[int], sampling: SamplingParams, exit: Dial, stop_check: StopCheck | None = None
    ) -> Stream:
        """Generate for one prompt piece by piece; the request is queued now and cancelled when the iterator is left."""
        if sampling.n > 1:
            raise InvalidParameter(f"a stream has one output, `n` is {sampling.n}", param="n")
        return Stream(self, self.submit(prompt, sampling, exit, stop_check=stop_check)[0])


class Stream:
    """The chunks of one output. Closing it, or dropping it, cancels the request."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        try:
            while self._session.holds(self._number):
                chunk = self._session.read(self._number)
                if chunk is None:
                    self._session.step()
                    continue
                if chunk.finish_reason is not None:
                    self.close()
                return chunk
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """Cancel what is left. May be called twice."""
        self._session.leave(self._number)

    def __del__(self) -> None:
        self.close()


def _open_trace(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise TraceError(f"trace `{path}` cannot be written: {error.strerror}") from error


def _one_each(value: T | Sequence[T], prompts: Sequence[object], name: str) -> list[T]:
    """`value` for every prompt, or the list it is, which must have one entry per prompt."""
    if not isinstance(value, list | tuple):
        return [value] * len(prompts)  # type: ignore[list-item]
    if len(value) != len(prompts):
        raise InvalidParameter(f"`{name}` has {len(value)} entries for {len(prompts)} prompts", param=name)
    return list(value)
