"""Random workloads: requests of every kind, and engines that may be short of everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from offramp.config import Batching, EngineConfig
from offramp.engine.request import Request, StopCheck
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.model import Model

MAX_PROMPT = 14
T = TypeVar("T")
THRESHOLDS = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


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
    source: tuple[int, ...] = ()

    def request(self) -> Request:
        """What is submitted; stop checks keep nothing, so the request may be submitted again."""
        checks: list[StopCheck] = [lambda token: token > 0 and token % self.stop_on == 0] if self.stop_on else []
        return Request(self.prompt, self.sampling, self.exit, checks * self.sampling.n, source=self.source)


@dataclass(frozen=True)
class Workload:
    """Requests and the engine they meet. `spare_blocks` come on top of what the largest request needs, and
    `spare_source_blocks` on top of what the longest source does."""

    arrivals: list[Arrival]
    config: EngineConfig
    block_size: int
    spare_blocks: int
    max_model_len: int
    spare_source_blocks: int = 0

    @property
    def num_source_blocks(self) -> int:
        return -(-max(len(a.source) for a in self.arrivals) // self.block_size) + self.spare_source_blocks

    @property
    def num_blocks(self) -> int:
        def most(arrival: Arrival) -> int:
            tokens = arrival.sampling.max_tokens
            length = self.max_model_len if tokens is None else len(arrival.prompt) + tokens
            return min(length, self.max_model_len)

        return -(-max(map(most, self.arrivals)) // self.block_size) + self.spare_blocks


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T], one_in: int = 6) -> st.SearchStrategy[T]:
    """`rare` once in `one_in` draws."""
    return st.integers(1, one_in).flatmap(lambda k: rare if k == one_in else usual)


def sampling_params(vocab_size: int, max_outputs: int = 1) -> st.SearchStrategy[SamplingParams]:
    """Greedy and sampled, with everything that can change a choice."""
    token = st.integers(0, vocab_size - 1)
    plain = st.fixed_dictionaries(
        {
            "max_tokens": mostly(st.integers(1, 24), st.none()),
            "seed": st.integers(0, 5),
            "ignore_eos": st.booleans(),
            "n": st.sampled_from([1] * 4 + list(range(1, max_outputs + 1))),
        }
    )
    drawn = st.sampled_from(
        [{}, {"temperature": 0.7, "min_p": 0.1}, {"temperature": 1.5, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}]
    )
    penalties = st.sampled_from(
        [{}, {}, {"repetition_penalty": 1.4}, {"presence_penalty": 0.8, "frequency_penalty": -0.3}]
    )
    ends = mostly(
        st.just({}),
        st.fixed_dictionaries(
            {"stop_token_ids": st.lists(token, max_size=2).map(tuple), "min_tokens": st.integers(0, 4)}
        ),
        one_in=3,
    )
    bias = mostly(st.just({}), st.dictionaries(token, st.sampled_from([-4.0, -1.0, 0.5, 2.0]), max_size=2), one_in=3)

    def build(*parts: dict[str, object]) -> SamplingParams:
        values: dict[str, object] = {}
        for part in parts:
            values |= part
        most = values["max_tokens"]
        if isinstance(most, int) and "min_tokens" in values:
            values["min_tokens"] = min(most, int(str(values["min_tokens"])))
        return SamplingParams.from_dict(values)

    return st.builds(build, plain, drawn, penalties, ends, bias.map(lambda b: {"logit_bias": b}))


def exit_params(
    layers: tuple[int, ...], kvs: tuple[str, ...] = ("fill", "recompute", "verify")
) -> st.SearchStrategy[ExitParams]:
    """Every built-in criterion under every KV policy."""
    layer = st.sampled_from(layers)
    plain: list[tuple[str, dict[str, object]]] = [
        (name, {}) for name in ("max_prob", "margin", "entropy", "saturation", "classifier", "patience", "never")
    ]
    criterion: st.SearchStrategy[tuple[str, dict[str, object]]] = mostly(
        st.sampled_from([*plain[:-1], *plain, ("patience", {"exits": 2})]),
        st.one_of(
            layer.map(lambda at: ("fixed", {"layer": at})),
            st.lists(layer, max_size=12).map(lambda at: ("replay", {"exit_layers": tuple(at)})),
        ),
        one_in=4,
    )
    level = st.sampled_from(THRESHOLDS)
    threshold: st.SearchStrategy[object] = mostly(level, st.dictionaries(layer, level, min_size=1), one_in=4)

    def build(named: tuple[str, dict[str, object]], **values: object) -> ExitParams:
        name, options = named
        if name == "fixed":  # the engine refuses a layer that is no exit of the request
            values["min_layer"] = 0
            if isinstance(values["threshold"], dict):
                values["threshold"] |= {options["layer"]: 1.0}
        return ExitParams.from_dict({"criterion": name, "options": options, **values})

    return st.builds(
        build,
        criterion,
        threshold=threshold,
        min_layer=st.sampled_from([0, 0, 0, layers[-1]]),
        kv=st.sampled_from(kvs),
        fill_when=st.sampled_from(["lazy", "iteration"]),
        max_draft=st.integers(1, 6),
        draft_threshold=st.sampled_from([0.0, 0.0, 0.05, 0.4]),
        recompute_cap=st.integers(1, 5),
        decay=st.sampled_from([None, None, 0.0, 4.0]),
    )


def sources(model: Model) -> st.SearchStrategy[st.SearchStrategy[tuple[int, ...]]]:
    """For each workload a few sources, of which each request has one; () for a model without encoder."""
    if not model.max_source_len:
        return st.just(st.just(()))
    token = st.integers(0, model.vocab_size - 1)
    one = st.lists(token, min_size=1, max_size=model.max_source_len).map(tuple)
    return st.lists(one, min_size=1, max_size=4).map(st.sampled_from)


@st.composite
def workloads(
    draw: st.DrawFn, model: Model, *, batching: tuple[Batching, ...] = ("compact", "depth"), max_requests: int = 12
) -> Workload:
    """Requests that come and go while others run, on an engine that may be short of everything."""
    token = st.integers(1, model.vocab_size - 1)
    shared = draw(st.lists(token, min_size=1, max_size=MAX_PROMPT - 2))
    source = draw(sources(model))
    arrivals = []
    for _ in range(draw(st.integers(1, max_requests))):
        start = shared[: draw(st.integers(0, len(shared)))]
        prompt = start + draw(st.lists(token, min_size=not start, max_size=MAX_PROMPT - len(start)))
        sampling = draw(sampling_params(model.vocab_size, max_outputs=3))
        leaving = mostly(st.none(), st.integers(0, 60), one_in=8)
        arrivals.append(
            Arrival(
                prompt=prompt,
                sampling=sampling,
                exit=draw(mostly(exit_params(model.exit_layers), st.none())),
                step=draw(st.one_of(st.just(0), st.integers(0, 40))),
                abort=tuple(draw(leaving) for _ in range(sampling.n)),
                stop_on=draw(st.sampled_from([0, 0, 0, 7])),
                source=draw(source),
            )
        )
    most = draw(st.sampled_from([4, 1, 2, 3, 6, 8, 12]))
    config = EngineConfig(
        batching=draw(st.sampled_from(batching)),
        max_num_seqs=most,
        max_num_batched_tokens=max(most, draw(st.integers(1, 64))),
        prefix_caching=draw(st.booleans()),
        profitability=False,
    )
    arrivals.sort(key=lambda arrival: arrival.step)
    size = draw(mostly(st.integers(1, 4), st.integers(1, 16), one_in=3))
    spare = draw(mostly(st.integers(0, 6), st.integers(0, 60), one_in=3))
    spare_for_sources = draw(mostly(st.integers(0, 6), st.integers(0, 40), one_in=3)) if model.max_source_len else 0
    return Workload(arrivals, config, size, spare, model.max_model_len, spare_for_sources)


@st.composite
def fixed_batches(draw: st.DrawFn, model: Model) -> Workload:
    """Requests that start together in a batch and a cache that hold them all: what `lockstep` is defined on."""
    token = st.integers(1, model.vocab_size - 1)
    exit = mostly(exit_params(model.exit_layers, kvs=("fill",)), st.none(), one_in=10)
    source = draw(sources(model))
    arrivals = [
        Arrival(
            draw(st.lists(token, min_size=1, max_size=MAX_PROMPT)),
            draw(sampling_params(model.vocab_size)),
            draw(exit),
            source=draw(source),
        )
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
    return Workload(arrivals, config, size, 6 * model.max_model_len, model.max_model_len, 6 * model.max_source_len)
