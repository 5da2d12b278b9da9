"""The engine: continuous batching over sequences that sit at different depths.

A step is plan (scheduler) -> advance (executor) -> decide (criterion, top) -> apply (sequence).
"""

from __future__ import annotations

from collections.abc import Callable

from offramp.config import EngineConfig
from offramp.engine.admit import admit
from offramp.engine.advance import advance, encode, fill_now
from offramp.engine.blocks import BlockPool
from offramp.engine.costs import CostModel
from offramp.engine.decide import Test, apply_top, score_prompts, test_exits, top_choices
from offramp.engine.guide import no_choice
from offramp.engine.integrity import check_integrity
from offramp.engine.make import make_sequences, with_start
from offramp.engine.meter import Meter
from offramp.engine.past import kept_past
from offramp.engine.plan import Advance, Finished, Plan, StepResult
from offramp.engine.policies import make_policy
from offramp.engine.request import Fault, Request, StopCheck, TokenEvent
from offramp.engine.scheduler import Scheduler
from offramp.engine.sequence import Sequence
from offramp.engine.validate import check_request
from offramp.types.executor import Executor
from offramp.types.output import FinishReason, LogProbs


class Engine:
    """Runs requests on an executor. Not thread-safe: one thread submits, steps and aborts.

    A step that raises while it is carried out is undone. `suspects` then are those whom it was about, or, where a
    criterion raised, those who brought it along: without them the next step may go well. Where there are none, the step
    could not be planned, and the engine is not to be trusted any more.

    Args:
        executor: holds the model and the paged store.
        config: batching and admission.
        costs: step prices; by default estimated from layer counts until measured.
        on_test: told every exit test, for traces.
    """

    def __init__(
        self,
        executor: Executor,
        config: EngineConfig | None = None,
        costs: CostModel | None = None,
        *,
        on_test: Callable[[Test], None] | None = None,
    ) -> None:
        self.executor = executor
        self.config = config or EngineConfig()
        shape = executor.shape
        self.costs = costs or CostModel.from_layers(shape.layers_at)
        self.meter = Meter(executor, self.costs, switching=self.config.profitability)
        self.pool = BlockPool(shape.num_blocks, shape.block_size, prefix_caching=self.config.prefix_caching)
        self.policy = make_policy(self.config.batching, self.costs)
        sources = None
        if shape.encoder is not None:
            sources = BlockPool(shape.encoder.num_blocks, shape.block_size, prefix_caching=False)
        self.scheduler = Scheduler(self.config, self.pool, self.policy, sources)
        self.on_test = on_test
        self.sequences: dict[int, Sequence] = {}
        self._stop_checks: dict[int, StopCheck] = {}
        self._num_submitted = self._num_steps = 0
        self._aborted: list[int] = []
        self.suspects: tuple[int, ...] = ()

    # Requests come and go

    def submit(self, request: Request) -> list[int]:
        """Queue a request; returns one sequence number per output.

        Raises:
            InvalidParameter, Unsupported, CacheTooSmall: the request can never be served, with the reason.
            QueueFull: `max_queue` sequences wait already.
        """
        request = with_start(request, self.executor.shape)
        check_request(request, self.executor, self.config)
        self.scheduler.check_room(request.sampling.n)
        new = make_sequences(request, self._num_submitted, self.executor.shape, self.sequences.values())
        numbers = [sequence.number for sequence in new]
        self.sequences.update(zip(numbers, new, strict=True))
        if request.stop_checks:
            self._stop_checks.update(zip(numbers, request.stop_checks, strict=True))
        self.scheduler.waiting += new
        self._num_submitted += len(new)
        return numbers

    def abort(self, number: int, fault: str | None = None) -> None:
        """End a sequence now, wherever it is; its blocks are back at once. Unknown or ended ones are left alone.

        Where there is a `fault`, the finish reason is `error`.
        """
        sequence = self.sequences.get(number)
        if sequence is not None and sequence.finish_reason is None:
            self._finish(sequence, "error" if fault else "abort", fault)
            self._aborted.append(number)

    def forget(self, number: int) -> None:
        """Drop an ended sequence's record."""
        sequence = self.sequences[number]
        assert sequence.finish_reason is not None, f"sequence {number} has not ended"
        del self.sequences[number]

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    # A step

    def step(self) -> StepResult:
        """Plan the next step and carry it out. There must be work."""
        self.suspects = ()
        self.meter.live = self.scheduler.load
        admitted = self.scheduler.admissions(self.meter.exits_pay)
        admit(self.scheduler, admitted)
        segment, moves, preempted, encoding = self.scheduler.select()
        verify_off = () if self.meter.verify_pays() else tuple(s.number for s, _ in moves if s.drafts)
        # Where everybody moves together, and on, no other step could come between.
        alone = len(moves) + len(preempted) == len(self.scheduler.running)
        to_top = alone and not verify_off and all(s.climbs_freely(segment, stop) for s, stop in moves)
        advances = tuple([Advance(s.number, stop) for s, stop in moves])
        preempt = tuple([s.number for s in preempted])
        abort, self._aborted = tuple(self._aborted), []
        sources = tuple([s.number for s in encoding])
        plan = Plan(self._num_steps, segment, advances, abort, admitted, preempt, verify_off, to_top, sources)
        return self._carry_out(plan)

    def carry_out(self, plan: Plan) -> StepResult:
        """Repeat a recorded step on an engine that has been given the same requests and earlier plans."""
        for number in plan.abort:
            self.abort(number)
        admit(self.scheduler, plan.admit)
        return self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> StepResult:
        self._num_steps = plan.number + 1
        self.meter.live = max(1, len(self.scheduler.running))
        for number in plan.preempt:
            self._preempt(self.sequences[number])
        for number in plan.verify_off:
            self.sequences[number].exits_on = False
            self.sequences[number].switched_off = True
        moves = [(self.sequences[number], stop) for number, stop in plan.advance]
        moved = [s for s, _ in moves]
        before = [(s, list(s.frontier)) for s in moved]
        top = self.executor.shape.num_segments
        segments = range(plan.segment, top if plan.to_top else plan.segment + 1)
        encoding = [self.sequences[number] for number in plan.encode]
        try:
            self.policy.encoded(encode(self.meter, encoding))
        except BaseException:
            self._undo([(s, list(s.frontier)) for s in encoding], plan.encode)
            raise
        try:
            rows = advance(self.meter, segments, moves)
            events, chose = self._decide(segments.stop, moved)
        except Fault as fault:
            self._undo(before, fault.numbers)
            raise fault.error from None
        except BaseException:
            self._undo(before, plan.moved)
            raise
        finished = tuple([Finished(s.number, s.finish_reason) for s in moved if s.finish_reason])
        for segment in segments:
            chose_here = chose if segment == segments[-1] else ()
            self.policy.stepped(segment, rows, moved, chose_here, len(self.scheduler.running))
        return StepResult(plan, tuple(events), finished)

    def _undo(self, before: list[tuple[Sequence, list[int]]], suspects: tuple[int, ...]) -> None:
        """A step broke off, nobody knows where: whoever it moved starts over from what was decided."""
        self.suspects = suspects
        for sequence, frontier in reversed(before):
            if sequence.finish_reason is None:
                sequence.restore(frontier)
                self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        past = kept_past(self.executor, sequence)
        sequence.preempt()
        sequence.past = past
        self.scheduler.running.remove(sequence)
        self.scheduler.waiting.appendleft(sequence)

    # Decisions

    def _decide(self, boundary: int, sequences: list[Sequence]) -> tuple[list[TokenEvent], list[Sequence]]:
        """Decide for sequences that may have arrived at `boundary`; returns events and who chose a token."""
        if boundary < self.executor.shape.num_segments:
            return self._decide_at_exit(boundary, sequences)
        events: list[TokenEvent] = []
        chose: list[Sequence] = []
        self._score_prompts(sequences)
        arrived = [(s, due) for s in sequences if not s.finish_reason and (due := s.choice_due())]
        if not arrived:
            return events, chose
        rows = sum([len(due) for _, due in arrived])
        verifying = sum([len(due) for s, due in arrived if s.drafts])
        for choice in self.meter.top(lambda: top_choices(self.executor, arrived), rows, verifying):
            sequence = choice.sequence
            before = sequence.accepted
            logprobs, failed = apply_top(choice)
            chose.append(sequence)
            events += self._emit(sequence, before, logprobs)
            if failed and sequence.finish_reason is None:
                self._finish(sequence, "error", no_choice(sequence.guide))
        return events, chose

    def _score_prompts(self, sequences: list[Sequence]) -> None:
        """Tell what was asked about prompts; ends those that want nothing else."""
        room = self.config.max_num_batched_tokens
        if asked := [s for s in sequences if not s.prompt_scores.complete]:
            for sequence in self.meter.prompts(lambda: score_prompts(self.executor, asked, room)):
                self._finish(sequence, "error", no_choice(sequence.guide))
        for sequence in [s for s in sequences if not (s.max_tokens or s.finish_reason) and s.choice_due()]:
            self._finish(sequence, "length")

    def _decide_at_exit(self, boundary: int, sequences: list[Sequence]) -> tuple[list[TokenEvent], list[Sequence]]:
        due = [(s, threshold) for s in sequences if (threshold := s.test_due(boundary)) is not None]
        if self.policy.joint and len(due) < len(sequences):
            due = []
        if not due:
            return [], []
        tests = self.meter.check(boundary, lambda: test_exits(self.executor, boundary, due), [s for s, _ in due])
        fired = sum([t.fired for t in tests])
        worth = self.meter.worth_leaving(boundary) if fired else 0.0
        stay = self.policy.joint and fired < len(tests)
        events: list[TokenEvent] = []
        chose = []
        for test in tests:
            if self.on_test is not None:
                self.on_test(test)
            if test.fired and not stay:
                chose.append(test.sequence)
                self.meter.left(test.sequence, worth)
                events += self._leave(boundary, test)
            else:
                test.sequence.fail(boundary, test.signals)
        if self.policy.joint:
            fill_now(self.meter, [s for s in chose if s.finish_reason is None])
        return events, chose

    def _leave(self, boundary: int, test: Test) -> list[TokenEvent]:
        sequence = test.sequence
        assert test.scored.token is not None
        before = sequence.accepted
        sequence.choose(boundary, test.scored.token, test.confidence)
        return [] if sequence.verifies else self._emit(sequence, before, [test.scored.logprobs])

    def _emit(self, sequence: Sequence, before: int, logprobs: list[LogProbs | None]) -> list[TokenEvent]:
        """Events of the tokens accepted since `before`; ends the sequence where one of them ends the request."""
        self.meter.accepted(sequence, sequence.accepted - before, before == sequence.prompt_length)
        events = []
        check = self._stop_checks.get(sequence.number)
        for length, logprob in zip(range(before + 1, sequence.accepted + 1), logprobs, strict=True):
            index = length - 1 - sequence.prompt_length
            token = sequence.tokens[length - 1]
            reason, fault = sequence.end_reason(length), None
            try:
                if check is not None and check(token):
                    reason = "stop"
            except Exception as error:  # the request's own: it fails alone
                reason, fault = "error", f"a stop check broke off: {error!r}"
            layer = sequence.layers_at[sequence.marks[index]]
            events.append(
                TokenEvent(sequence.number, index, token, layer, sequence.confidences[index], logprob, reason)
            )
            if reason:
                sequence.end_at(length)
                self._finish(sequence, reason, fault)
                break
        return events

    def _finish(self, sequence: Sequence, reason: FinishReason, fault: str | None = None) -> None:
        sequence.finish_reason, sequence.fault = reason, fault
        if sequence.lease is not None and reason != "error":
            sequence.lease.register(sequence.tokens, sequence.cacheable_length)
        sequence.close()
        if sequence in self.scheduler.running:
            self.scheduler.running.remove(sequence)
        else:
            self.scheduler.waiting.remove(sequence)
        self._stop_checks.pop(sequence.number, None)

    def check_integrity(self) -> None:
        """Recount blocks and frontiers.

        Raises:
            AssertionError: a bug in the engine: leaked blocks, frontiers out of order, or a lease left open.
        """
        check_integrity(self.scheduler, self.sequences.values())
