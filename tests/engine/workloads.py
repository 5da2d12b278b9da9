"""Random workloads, a driver that checks the engine after every step, and what the oracle expects of each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hypothesis import note
from hypothesis import strategies as st

from offramp.config import Batching, EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.plan import Admission, Advance, Plan
from offramp.engine.request import Request, StopCheck, TokenEvent
from offramp.types.executor import Executor
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.generate import generate
from tests.oracle.model import Model

MAX_PROMPT = 14
MAX_STEPS = 20_000
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95, 1.0)


@dataclass(frozen=True)
class Arrival:
    """A request, the step before which it is submitted, and the one before which each output is aborted, if any.

    An output ends after a token that `stop_on` divides, as if a stop string had been found; 0 is never.
    """

    prompt: list[int]
    sampling: SamplingParams
    exit: ExitParams | None
    step: int = 0
    abort: tuple[int | None, ...] = (None,)
    stop_on: int = 0

    def request(self) -> Request:
        """What is submitted; stop checks keep nothing, so the request may be submitted again."""
        checks: list[StopCheck] = [lambda token: token > 0 and token % self.stop_on == 0] if self.stop_on else []
        return Request(self.prompt, self.sampling, self.exit, checks * self.sampling.n)


@dataclass(frozen=True)
class Workload:
    """Requests and the engine they meet. `spare_blocks` come on top of what the largest request needs."""

    arrivals: list[Arrival]
    config: EngineConfig
    block_size: int
    spare_blocks: int
    max_model_len: int

    @property
    def num_blocks(self) -> int:
        def most(arrival: Arrival) -> int:
            tokens = arrival.sampling.max_tokens
            length = self.max_model_len if tokens is None else len(arrival.prompt) + tokens
            return min(length, self.max_model_len)

        return -(-max(map(most, self.arrivals)) // self.block_size) + self.spare_blocks


@dataclass
class Outcome:
    """What the engine did: each output's events and finish reason, by sequence number, and the plans."""

    events: dict[int, list[TokenEvent]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)

    def tokens(self, number: int) -> list[int]:
        return [event.token for event in self.events.get(number, [])]

    def exit_layers(self, number: int) -> list[int]:
        return [event.exit_layer for event in self.events.get(number, [])]


@dataclass(frozen=True)
class Expected:
    """What an output must be; `exit_layers` is None where they may depend on the schedule."""

    tokens: list[int]
    exit_layers: list[int] | None
    reason: str


def sampling_params(vocab_size: int, max_outputs: int = 1) -> st.SearchStrategy[SamplingParams]:
    """Greedy and sampled, with everything that can change a choice."""
    token = st.integers(0, vocab_size - 1)
    plain = st.fixed_dictionaries(
        {
            "max_tokens": st.one_of(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.none()),
            "seed": st.integers(0, 5),
            "ignore_eos": st.booleans(),
            "n": st.sampled_from([1] * 4 + list(range(1, max_outputs + 1))),
        }
    )
    drawn = st.sampled_from([{}, {"temperature": 0.7}, {"temperature": 1.5, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}])
    penalties = st.sampled_from(
        [{}, {}, {"repetition_penalty": 1.4}, {"presence_penalty": 0.8, "frequency_penalty": -0.3}]
    )
    ends = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"stop_token_ids": st.lists(token, max_size=2).map(tuple), "min_tokens": st.integers(0, 4)}),
    )
    bias = st.one_of(st.just({}), st.dictionaries(token, st.sampled_from([-4.0, -1.0, 0.5, 2.0]), max_size=2))

    def build(*parts: dict[str, object]) -> SamplingParams:
        values: dict[str, object] = {}
        for part in parts:
            values |= part
        most = values["max_tokens"]
        if isinstance(most, int) and "min_tokens" in values:
            values["min_tokens"] = min(most, int(str(values["min_tokens"])))
        return SamplingParams.from_dict(values)

    return st.builds(build, plain, drawn, penalties, ends, bias.map(lambda b: {"logit_bias": b}))


def exit_params(layers: tuple[int, ...], kvs: tuple[str, ...] = ("fill", "recompute", "verify")) -> st.SearchStrategy[ExitParams]:
    """Every built-in criterion under every KV policy."""
    layer = st.sampled_from(layers)
    criterion = st.one_of(
        st.sampled_from([("max_prob", {}), ("margin", {}), ("entropy", {}), ("saturation", {}), ("classifier", {})]),
        st.sampled_from([("max_prob", {}), ("classifier", {}), ("never", {}), ("patience", {"exits": 1})]),
        st.sampled_from([("patience", {}), ("patience", {"exits": 2})]),
        layer.map(lambda at: ("fixed", {"layer": at})),
        st.lists(layer, max_size=12).map(lambda at: ("replay", {"exit_layers": tuple(at)})),
    )
    level = st.sampled_from(THRESHOLDS)
    threshold = st.one_of(level, level, st.dictionaries(layer, level, min_size=1))

    def build(named: tuple[str, dict[str, object]], **values: object) -> ExitParams:
        return ExitParams.from_dict({"criterion": named[0], "options": named[1], **values})

    return st.builds(
        build,
        criterion,
        threshold=threshold,
        min_layer=st.sampled_from([0, 0, 0, layers[-1]]),
        kv=st.sampled_from(kvs),
        fill_when=st.sampled_from(["lazy", "iteration"]),
        max_draft=st.integers(1, 6),
        recompute_cap=st.integers(1, 5),
        decay=st.sampled_from([None, None, 0.0, 4.0]),
    )


@st.composite
def workloads(
    draw: st.DrawFn, model: Model, *, batching: tuple[Batching, ...] = ("compact", "depth"), max_requests: int = 12
) -> Workload:
    """Requests that come and go while others run, on an engine that may be short of everything."""
    token = st.integers(1, model.vocab_size - 1)
    shared = draw(st.lists(token, min_size=1, max_size=MAX_PROMPT - 2))
    arrivals = []
    for _ in range(draw(st.integers(1, max_requests))):
        start = shared[: draw(st.integers(0, len(shared)))]
        prompt = start + draw(st.lists(token, min_size=not start, max_size=MAX_PROMPT - len(start)))
        sampling = draw(sampling_params(model.vocab_size, max_outputs=3))
        leaving = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 60))
        arrivals.append(
            Arrival(
                prompt=prompt,
                sampling=sampling,
                exit=draw(st.one_of(st.none(), *[exit_params(model.exit_layers)] * 4)),
                step=draw(st.integers(0, 30)),
                abort=tuple(draw(leaving) for _ in range(sampling.n)),
                stop_on=draw(st.sampled_from([0, 0, 0, 7])),
            )
        )
    most = draw(st.integers(1, 12))
    config = EngineConfig(
        batching=draw(st.sampled_from(batching)),
        max_num_seqs=most,
        max_num_batched_tokens=max(most, draw(st.integers(1, 64))),
        prefix_caching=draw(st.booleans()),
        profitability=False,
    )
    arrivals.sort(key=lambda arrival: arrival.step)
    return Workload(arrivals, config, draw(st.integers(1, 16)), draw(st.one_of(st.integers(0, 6), st.integers(0, 60))), model.max_model_len)


@st.composite
def fixed_batches(draw: st.DrawFn, model: Model) -> Workload:
    """Requests that start together in a batch and a cache that hold them all: what `lockstep` is defined on."""
    token = st.integers(1, model.vocab_size - 1)
    exit = st.one_of(st.none(), *[exit_params(model.exit_layers, kvs=("fill",))] * 8)
    arrivals = [
        Arrival(draw(st.lists(token, min_size=1, max_size=MAX_PROMPT)), draw(sampling_params(model.vocab_size)), draw(exit))
        for _ in range(draw(st.integers(1, 6)))
    ]
    config = EngineConfig(
        batching="lockstep",
        max_num_seqs=6,
        max_num_batched_tokens=draw(st.integers(6, 64)),
        prefix_caching=draw(st.booleans()),
        profitability=False,
    )
    size = draw(st.integers(1, 16))
    return Workload(arrivals, config, size, 6 * model.max_model_len, model.max_model_len)


def run_workload(
    executor: Executor, workload: Workload, inspect: Callable[[Engine], None] | None = None
) -> Outcome:
    """Run everything to its end; `check_integrity`, and `inspect` if given, after every step.

    Raises:
        AssertionError: something is wrong, or it never ends.
    """
    engine, outcome = Engine(executor, workload.config), Outcome()
    to_come = list(workload.arrivals)
    aborts: list[tuple[int, int]] = []
    with noted(outcome.plans):
        for step in range(MAX_STEPS):
            while to_come and to_come[0].step <= step:
                arrival = to_come.pop(0)
                numbers = engine.submit(arrival.request())
                aborts += [(step + after, n) for n, after in zip(numbers, arrival.abort, strict=True) if after is not None]
            for _, number in [due for due in aborts if due[0] == step]:
                engine.abort(number)
                outcome.reasons.setdefault(number, "abort")
            if engine.has_work:
                result = engine.step()
                outcome.plans.append(result.plan)
                for event in result.events:
                    outcome.events.setdefault(event.sequence, []).append(event)
                outcome.reasons |= {ended.sequence: ended.reason for ended in result.finished}
            engine.check_integrity()
            if inspect:
                inspect(engine)
            if not (to_come or engine.has_work):
                break
        assert not engine.has_work, f"still at work after {MAX_STEPS} steps"
        assert engine.pool.num_free == workload.num_blocks, "blocks are missing at the end"
    return outcome


def replay_plans(executor: Executor, workload: Workload, printed: list[str]) -> Outcome:
    """Carry out printed plans on a fresh engine that was given the same requests."""
    engine, outcome = Engine(executor, workload.config), Outcome()
    for arrival in workload.arrivals:
        engine.submit(arrival.request())
    for text in printed:
        result = engine.carry_out(eval(text, {"Plan": Plan, "Admission": Admission, "Advance": Advance}))
        for event in result.events:
            outcome.events.setdefault(event.sequence, []).append(event)
    return outcome


@contextmanager
def noted(plans: list[Plan]) -> Iterator[None]:
    """Print the plans so far where the block fails; they can be carried out on a fresh engine (`replay_plans`)."""
    try:
        yield
    except Exception:
        note("\n".join(["plans so far:", *map(repr, plans)]))
        raise


def expectations(model: Model, workload: Workload) -> list[Expected]:
    """What the oracle gives for each output alone, by sequence number."""
    expected = []
    for arrival in workload.arrivals:
        assert arrival.sampling.seed is not None
        for i in range(arrival.sampling.n):
            sampling = replace(arrival.sampling, seed=arrival.sampling.seed + i, n=1)
            alone = generate(model, arrival.prompt, sampling, arrival.exit)
            tokens, layers, reason = alone.tokens, alone.exit_layers, alone.finish_reason
            stops = [k for k, t in enumerate(tokens) if arrival.stop_on and t > 0 and t % arrival.stop_on == 0]
            if stops:
                tokens, layers, reason = tokens[: stops[0] + 1], layers[: stops[0] + 1], "stop"
            drafts = arrival.exit is not None and arrival.exit.kv == "verify"
            expected.append(Expected(tokens, None if drafts else layers, reason))
    return expected


def check_outcome(outcome: Outcome, expected: list[Expected]) -> None:
    """Every output is what was expected of it, or the beginning of that if it was aborted."""
    with noted(outcome.plans):
        for number, wanted in enumerate(expected):
            tokens, layers = outcome.tokens(number), outcome.exit_layers(number)
            aborted = outcome.reasons[number] == "abort"
            upto = len(tokens) if aborted else len(wanted.tokens)
            assert tokens == wanted.tokens[:upto], f"output {number}: tokens"
            if wanted.exit_layers is not None:
                assert layers == wanted.exit_layers[:upto], f"output {number}: exit layers"
            if not aborted:
                assert outcome.reasons[number] == wanted.reason, f"output {number}: finish reason"
