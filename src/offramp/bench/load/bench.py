"""A whole run against a server: waiting for it, warming up, the load, and full depth beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from offramp.bench.load.agreement import agreement
from offramp.bench.load.arrivals import Arrivals
from offramp.bench.load.bodies import Form
from offramp.bench.load.client import Target, exchange
from offramp.bench.load.figures import Wanted, figures
from offramp.bench.load.outcomes import Outcome, read_outcome
from offramp.bench.load.replies import Unreadable, read_reply
from offramp.bench.load.run import Load, run_load
from offramp.bench.load.samples import Sample
from offramp.errors import OfframpError
from offramp.tokenizer import Tokenizer

TOGETHER = 32
"""Requests to the reference that run at a time, where the plan has no limit: a server's queue is not endless."""

PAUSE = 1.0
"""Seconds between two looks whether a server is ready."""

Update = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a phrase that says so."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How samples are sent.

    Args:
        together: the most requests that run at a time; None for any number.
        warmups: requests before those that count, all for the first sample.
        ready_seconds: how long to wait for a server, and for its first answer; 0 sends no request to find out.
        seed: of the times between requests.
    """

    arrivals: Arrivals = field(default_factory=Arrivals)
    together: int | None = None
    warmups: int = 0
    ready_seconds: float = 600.0
    seed: int = 0


async def served_model(target: Target, seconds: float) -> str:
    """The name of the first model that a server has, which is waited for.

    Raises:
        OfframpError: there is no server, or none that tells.
    """
    request, end = target.request("/v1/models"), monotonic() + seconds
    while True:
        try:
            reply = read_reply(await exchange(target, request, timeout=30.0))
            error = reply.error()
            if error is None:
                return str(reply.json()["data"][0]["id"])
        except Unreadable as trouble:
            reply, error = None, str(trouble)
        except (KeyError, IndexError, TypeError):
            raise OfframpError(
                "the server tells no model at `/v1/models`", hint="name it with `--model MODEL`"
            ) from None
        await _wait(end, target, error, final=reply is not None and reply.status not in (429, 503))


async def measure(
    target: Target, form: Form, samples: Sequence[Sample], plan: Plan, update: Update
) -> tuple[Load, list[Outcome]]:
    """Send the samples to a server, once it is there and takes them.

    Raises:
        OfframpError: the first sample cannot be served: nobody is there, or the server refuses it.
    """
    end = monotonic() + plan.ready_seconds
    first = form.request(target, samples[0], 0)
    while plan.ready_seconds:
        update(0, 1, "waiting for the server")
        recorded = await exchange(target, first, timeout=plan.ready_seconds)
        outcome = read_outcome(recorded)
        if outcome.error is None:
            break
        refused = bool(recorded.arrivals) and not outcome.error.startswith(("429", "503"))
        await _wait(end, target, outcome.error, final=refused)
    if plan.warmups:
        update(0, 1, "warming up")
        await run_load(target, [first] * plan.warmups, [0.0] * plan.warmups, plan.together, lambda done: None)
    requests = [form.request(target, sample, number) for number, sample in enumerate(samples)]
    count = len(requests)
    due = plan.arrivals.due(count, plan.seed)
    load = await run_load(
        target, requests, due, plan.together, lambda done: update(done, count, f"{done} of {count} requests")
    )
    return load, [read_outcome(recorded) for recorded in load.recorded]


async def run(
    target: Target,
    form: Form,
    samples: Sequence[Sample],
    plan: Plan,
    wanted: Wanted,
    update: Update,
    *,
    tokenizer: Tokenizer | None = None,
    reference: tuple[Target, Form] | None = None,
) -> dict[str, Any]:
    """Measure, and compare with `reference`, which is sent the same samples afterwards: the result of `lines`.

    Details have an entry for each request: `input_lens`, `output_lens`, `ttfts`, `itls`, `generated_texts`, `errors`.

    What goes wrong with the reference is in `reference_errors`, each kind once; `agreement` is over those that both
    answered, None where nothing can be compared.

    Raises:
        OfframpError: the server cannot be measured.
    """
    load, outcomes = await measure(target, form, samples, plan, update)
    for outcome, sample in zip(outcomes, samples, strict=True):
        if outcome.error is None:
            _count(outcome, sample, tokenizer)
    result = {
        **figures(outcomes, load.seconds, wanted),
        "client": {"cpu_seconds": load.cpu_seconds},
        "agreement": None,
        "input_lens": [outcome.prompt_tokens for outcome in outcomes],
        "output_lens": [outcome.output_tokens for outcome in outcomes],
        "ttfts": [outcome.ttft for outcome in outcomes],
        "itls": [outcome.itl for outcome in outcomes],
        "generated_texts": [outcome.text for outcome in outcomes],
        "errors": [outcome.error for outcome in outcomes],
    }
    if reference is not None:
        at_once = replace(plan, arrivals=Arrivals(math.inf), warmups=0, together=plan.together or TOGETHER)
        try:
            _, others = await measure(*reference, samples, at_once, update)
        except OfframpError as error:  # what has been measured is not lost for that
            result["reference_errors"] = [error.message]
            return result
        result["agreement"] = agreement(outcomes, others, tokenizer)
        result["reference_errors"] = sorted({outcome.error for outcome in others if outcome.error is not None})
    return result


def _count(outcome: Outcome, sample: Sample, tokenizer: Tokenizer | None) -> None:
    """Tokens that the server does not tell of: as the tokenizer reads texts, else one for each chunk."""
    if outcome.prompt_tokens is None:
        outcome.prompt_tokens = sample.prompt_tokens
    if not outcome.output_tokens:
        chunks = len(outcome.itl) + 1
        text = outcome.text
        outcome.output_tokens = chunks if tokenizer is None else len(tokenizer.encode(text, add_special_tokens=False))


async def _wait(end: float, target: Target, error: str, *, final: bool) -> None:
    """Wait a little, where waiting may help and there is time.

    Raises:
        OfframpError: there is none.
    """
    if final or monotonic() + PAUSE > end:
        where = f"{target.host}:{target.port}"
        said = "refused the first request" if final else "cannot be measured"
        raise OfframpError(f"the server at {where} {said}: {error}", hint=None if final else "is it running?")
    await asyncio.sleep(PAUSE)
