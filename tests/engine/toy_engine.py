"""Engines over toy models, and running them to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.plan import Plan
from offramp.engine.request import Request, TokenEvent
from offramp.exits.pack import ExitPack, static_exits
from offramp.models import Spec
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import make_executor
from tests.t5_toy import toy_t5_spec, toy_t5_weights
from tests.toy import DictSource, Weights, toy_spec, toy_weights

SPEC = toy_spec(8)
WEIGHTS = toy_weights(SPEC, 0)
T5_SPEC = toy_t5_spec(8)
T5_WEIGHTS = toy_t5_weights(T5_SPEC, 0)
EXITS = (2, 4, 6)


class Chosen:
    """The executors that `make_engine` takes; tests marked with the fixture `each_executor` run on all of them, those
    with `each_model` also on "t5", an encoder-decoder on the torch executor."""

    kind = "torch"


def make_engine(
    *,
    block_size: int = 4,
    num_blocks: int = 64,
    exits: Sequence[int] | ExitPack = EXITS,
    weights: Weights | None = None,
    **config: Any,
) -> Engine:
    """An engine with exits after layers 2, 4 and 6 of 8; measured time has no say unless asked for."""
    pack = exits if isinstance(exits, ExitPack) else static_exits(list(exits), SPEC.num_layers)
    kind, known = Chosen.kind, WEIGHTS
    spec: Spec = SPEC
    sizes = {"block_size": block_size, "num_blocks": num_blocks}
    if kind == "t5":
        kind, spec, known = "torch", T5_SPEC, T5_WEIGHTS
        sizes["num_source_blocks"] = num_blocks
    executor = make_executor(kind, spec, DictSource(known if weights is None else weights), pack, **sizes)
    return Engine(executor, EngineConfig(**{"profitability": False, **config}))


def request(
    prompt: Sequence[int] = (5, 6, 7), exit: ExitParams | None = None, stop_checks: Sequence[Any] = (), **sampling: Any
) -> Request:
    """A greedy request of 12 tokens unless told otherwise. On a T5 what is given as prompt comes after a source."""
    params = {"max_tokens": 12, "ignore_eos": True, **sampling}
    source = [1 + (7 * token) % 40 for token in prompt][:6] if Chosen.kind == "t5" else ()
    return Request(prompt, SamplingParams(**params), exit, stop_checks, source=source)


class Run:
    """What an engine did until nothing was left: events by sequence, plans, integrity checked after every step."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.numbers = [engine.submit(r) for r in requests]
        self.events: dict[int, list[TokenEvent]] = {n: [] for group in self.numbers for n in group}
        self.in_order: list[TokenEvent] = []
        self.plans: list[Plan] = []
        while engine.has_work:
            result = engine.step()
            self.plans.append(result.plan)
            self.in_order += result.events
            for event in result.events:
                self.events[event.sequence].append(event)
            engine.check_integrity()

    def tokens(self, number: int = 0) -> list[int]:
        """The output of a sequence."""
        return [e.token for e in self.events[number]]

    def exit_layers(self, number: int = 0) -> list[int]:
        """The layers that proposed it."""
        return [e.exit_layer for e in self.events[number]]
