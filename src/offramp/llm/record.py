"""One output in the making: tokens as they are accepted, and their text."""

from __future__ import annotations

from collections import abc

from offramp.engine.accounting import report
from offramp.engine.request import StopCheck, TokenEvent
from offramp.engine.sequence import Sequence
from offramp.engine.sources import root_of
from offramp.tokenizer import Detokenizer, StopStrings, Tokenizer
from offramp.types.output import Chunk, LogProbs, Output
from offramp.types.sampling import SamplingParams


class Record:
    """Collects what the engine says about one sequence. `push_token` is the sequence's stop check."""

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        sampling: SamplingParams,
        stop_ids: frozenset[int],
        stop_check: StopCheck | None = None,
        after: abc.Sequence[int] = (),
    ) -> None:
        self.index = index
        self._stop_check = stop_check
        self._detokenizer = Detokenizer(tokenizer, after=after)
        self._stop = StopStrings(sampling.stop)
        self._stop_ids = stop_ids
        self._stopped = False
        self._with_logprobs = sampling.logprobs is not None
        self._text: list[str] = []
        self._events: list[TokenEvent] = []
        self._num_texts_read = 0
        self._num_events_read = 0
        self._num_reads = 0

    def push_token(self, token: int) -> bool:
        """Take the text of an accepted token; true when it completes a stop string, or the stop check says so."""
        if token in self._stop_ids:
            return False
        self._push_text(self._detokenizer.push(token))
        return self._stopped or (self._stop_check is not None and self._stop_check(token))

    def push_event(self, event: TokenEvent) -> None:
        """Take an accepted token."""
        self._events.append(event)

    def finish(self) -> None:
        """The sequence has ended: text held back is complete now."""
        self._push_text(self._detokenizer.finish())
        self._text.append(self._stop.flush())

    def _push_text(self, text: str) -> None:
        text, stop = self._stop.push(text)
        self._text.append(text)
        self._stopped = stop is not None

    def read(self, sequence: Sequence) -> Chunk | None:
        """What is new since the last call; None if nothing is."""
        events, text = self._events[self._num_events_read :], "".join(self._text[self._num_texts_read :])
        self._num_events_read, self._num_texts_read = len(self._events), len(self._text)
        if not events and sequence.finish_reason is None:
            return None
        first = self._num_reads == 0
        self._num_reads += 1
        return Chunk(
            text=text,
            token_ids=tuple([e.token for e in events]),
            exit_layers=tuple([e.exit_layer for e in events]),
            confidences=tuple([e.confidence for e in events]),
            finish_reason=sequence.finish_reason,
            output=None if sequence.finish_reason is None else self.output(sequence),
            logprobs=self._logprobs(events),
            prompt_logprobs=_prompt_logprobs(sequence) if first else None,
            error=sequence.fault,
        )

    def output(self, sequence: Sequence) -> Output:
        """The whole of an ended sequence."""
        assert sequence.finish_reason is not None
        events = self._events
        return Output(
            index=self.index,
            text="".join(self._text),
            prompt_token_ids=root_of(sequence.source) or tuple(sequence.tokens[: sequence.prompt_length]),
            token_ids=tuple(e.token for e in events),
            exit_layers=tuple(e.exit_layer for e in events),
            confidences=tuple(e.confidence for e in events),
            logprobs=self._logprobs(events),
            finish_reason=sequence.finish_reason,
            report=report(sequence),
        )

    def _logprobs(self, events: list[TokenEvent]) -> tuple[LogProbs, ...] | None:
        return tuple([e.logprobs or () for e in events]) if self._with_logprobs else None


def _prompt_logprobs(sequence: Sequence) -> tuple[LogProbs, ...] | None:
    scores = sequence.prompt_scores
    return None if scores.most is None or not scores.complete else tuple(scores.told)
