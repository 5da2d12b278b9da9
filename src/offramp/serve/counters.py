"""What an engine has done since its process began."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from dataclasses import asdict

from offramp.engine.accounting import report
from offramp.engine.engine import Engine
from offramp.engine.plan import StepResult
from offramp.engine.sequence import Sequence
from offramp.serve.memory import resident_bytes
from offramp.serve.protocol import EngineStats


class Counters:
    """Counts steps and tokens as they come, and the rest when an output ends."""

    def __init__(self) -> None:
        self.steps = self.aborted = self.preemptions = 0
        self.step_seconds = 0.0
        self._exit_tokens: Counter[int] = Counter()
        self._prompt = self._cached = self._proposed = self._accepted = 0
        self._run = self._filled = self._skipped = 0

    def stepped(self, result: StepResult, seconds: float) -> None:
        """A step did this, and took so long."""
        self.steps += 1
        self.step_seconds += seconds
        self.preemptions += len(result.plan.preempt)
        self._exit_tokens.update([event.exit_layer for event in result.events])

    def broke_off(self, seconds: float) -> None:
        """A step was undone, and took so long."""
        self.step_seconds += seconds

    def prompt_read(self, sequence: Sequence) -> None:
        """The prompt of a job has been read for its first output."""
        if sequence.source is not None:
            self._prompt += len(sequence.source.tokens)
            return
        self._prompt += sequence.prompt_length
        self._cached += sequence.cached_prompt_tokens

    def ended(self, sequence: Sequence) -> None:
        """An output has ended."""
        self.aborted += sequence.finish_reason == "abort"
        spent = report(sequence)
        self._proposed += spent.drafts_proposed
        self._accepted += spent.drafts_accepted
        self._run += sum(spent.layers_run)
        self._filled += sum(spent.layers_filled)
        self._skipped += sum(spent.layers_skipped)

    def stats(self, engine: Engine) -> EngineStats:
        """All of it, and how the engine stands now."""
        pool, sources, time = engine.pool, engine.scheduler.sources, engine.meter.time
        return EngineStats(
            running=len(engine.scheduler.running),
            waiting=len(engine.scheduler.waiting),
            kv_used_blocks=pool.num_blocks - pool.num_free,
            kv_total_blocks=pool.num_blocks,
            steps=self.steps,
            prompt_tokens=self._prompt,
            cached_prompt_tokens=self._cached,
            output_tokens=self._exit_tokens.total(),
            preemptions=self.preemptions,
            aborted=self.aborted,
            drafts_proposed=self._proposed,
            drafts_accepted=self._accepted,
            layers_run=self._run,
            layers_filled=self._filled,
            layers_skipped=self._skipped,
            exit_tokens=dict(sorted(self._exit_tokens.items())),
            seconds={**asdict(time), "other": max(0.0, self.step_seconds - time.total)},
            rss_bytes=resident_bytes() or _most_bytes(),
            source_used_blocks=0 if sources is None else sources.num_blocks - sources.num_free,
            source_total_blocks=0 if sources is None else sources.num_blocks,
        )


def _most_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
