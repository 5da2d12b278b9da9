"""Every setting of the dial on the same prompts, in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp
from time import perf_counter

from offramp.calibrate.answers import check_room, same_answer
from offramp.errors import InvalidParameter, OfframpError
from offramp.evaluate.bootstrap import Interval, ratio, ratio_of_ratios
from offramp.evaluate.likelihood import Seen, likelihoods
from offramp.evaluate.results import EvalReport, Sample, SettingReport
from offramp.evaluate.similarity import chrf, rouge_l
from offramp.evaluate.tasks import Case
from offramp.llm.dial import resolve_dial
from offramp.llm.forced import given
from offramp.llm.llm import LLM
from offramp.tokenizer import Detokenizer
from offramp.types.checks import check_integer
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

SAMPLES = 4
"""Outputs of each setting that the report shows."""

Update = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and a phrase that says so."""


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate. Validated on construction.

    Args:
        settings: positions of the dial; `off` comes first whether it is listed or not.
        max_tokens: most tokens to generate for a prompt.
        batch: prompts that are generated together.

    Raises:
        InvalidParameter: a value outside what is listed above.
    """

    settings: tuple[str, ...] = ("off", "lossless")
    max_tokens: int = 256
    batch: int = 8

    def __post_init__(self) -> None:
        check_integer("max_tokens", self.max_tokens, 1)
        check_integer("batch", self.batch, 1)
        object.__setattr__(self, "settings", tuple(dict.fromkeys(("off", *self.settings))))


@dataclass
class _Outcome:
    """All outputs under one setting, what full depth says about their tokens, and the time of every batch."""

    outputs: list[Output] = field(default_factory=list)
    seen: list[list[Seen]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def evaluate(
    llm: LLM, cases: Sequence[Case], options: EvalOptions, update: Update = lambda done, total, text: None
) -> EvalReport:
    """Generate greedily for all cases under all settings, in turns batch by batch, and compare.

    Times are fair only where the `LLM` keeps no prefix cache: the first setting of a batch would fill it for the rest.

    Raises:
        InvalidParameter: no cases, a setting that is no position of the dial, a prompt or a completion too long.
        PackError: a risk that the exit pack has no calibration for.
    """
    if not cases:
        raise InvalidParameter("there are no prompts", param="data")
    for setting in options.settings:
        resolve_dial(setting, llm.pack, llm.calibration_key)
    longest = max(len(case.prompt) for case in cases)
    context = llm.engine.executor.shape.max_model_len
    if longest + options.max_tokens > context:
        raise InvalidParameter(
            f"a prompt has {longest} tokens and may get {options.max_tokens} more, the context holds {context}",
            param="max_tokens",
            hint="lower `--max-tokens`, or raise `--max-model-len`",
        )
    completions = [case.answer for case in cases if case.answer is not None and case.judge is same_answer]
    check_room(completions, llm.tokenizer, options.max_tokens)
    sampling = SamplingParams(max_tokens=options.max_tokens)
    outcomes = {setting: _Outcome() for setting in options.settings}
    for turn, start in enumerate(range(0, len(cases), options.batch)):
        prompts = [case.prompt for case in cases[start : start + options.batch]]
        # Each batch begins with another setting, so that none is always the first.
        first = turn % len(options.settings)
        for setting in (*options.settings[first:], *options.settings[:first]):
            update(start, len(cases), f"{start} of {len(cases)} prompts, {setting}")
            _generate(llm, prompts, sampling, setting, outcomes[setting])
    off = outcomes["off"]
    return EvalReport(
        about={"model": llm.calibration_key.model, "pack": llm.calibration_key.pack},
        depth=llm.spec.num_layers,
        prompts=dict(Counter(case.task for case in cases)),
        settings=tuple(_report(llm, cases, setting, outcome, off) for setting, outcome in outcomes.items()),
    )


def _generate(
    llm: LLM, prompts: list[tuple[int, ...]], sampling: SamplingParams, setting: str, outcome: _Outcome
) -> None:
    begin = perf_counter()
    outputs = llm.generate(prompts, sampling, setting)
    outcome.seconds.append(perf_counter() - begin)
    if any(output.finish_reason == "error" for output in outputs):
        raise OfframpError("the model gave no finite number for a prompt", hint="check its weights")
    outcome.tokens.append(sum(len(output.token_ids) for output in outputs))
    outcome.outputs += outputs
    outcome.seen += likelihoods(llm.engine, [given(output, llm.engine.executor.shape) for output in outputs])


def _report(llm: LLM, cases: Sequence[Case], name: str, outcome: _Outcome, off: _Outcome) -> SettingReport:
    outputs = outcome.outputs
    lengths = [len(output.token_ids) for output in outputs]
    reports = [output.report for output in outputs]
    texts, wanted = [o.text for o in outputs], [o.text for o in off.outputs]
    layers = Counter(chain.from_iterable(output.exit_layers for output in outputs))
    nats = ratio([-sum(token.log_prob for token in seen) for seen in outcome.seen], lengths)
    measures = {
        "differ": ratio([_differ(output, seen) for output, seen in zip(outputs, outcome.seen, strict=True)]),
        "rouge_l": ratio([rouge_l(text, reference) for text, reference in zip(texts, wanted, strict=True)]),
        "chrf": ratio([chrf(text, reference) for text, reference in zip(texts, wanted, strict=True)]),
        "perplexity": Interval(*map(exp, nats)),
        "exit_layer": ratio([sum(output.exit_layers) for output in outputs], lengths),
        "run": ratio([sum(report.layers_run) for report in reports], lengths),
        "filled": ratio([sum(report.layers_filled) for report in reports], lengths),
        "skipped": ratio([sum(report.layers_skipped) for report in reports], lengths),
        "tokens_per_second": ratio(outcome.tokens, outcome.seconds),
    }
    measures |= _right(cases, texts, wanted)
    return SettingReport(
        name=name,
        measures=measures,
        speedup=ratio_of_ratios(outcome.tokens, outcome.seconds, off.tokens, off.seconds),
        exit_shares={layer: count / sum(lengths) for layer, count in sorted(layers.items())},
        drafts=(sum(r.drafts_proposed for r in reports), sum(r.drafts_accepted for r in reports)),
        samples=tuple(_sample(llm, output) for output in outputs[:SAMPLES]),
    )


def _right(cases: Sequence[Case], texts: Sequence[str], full_depth: Sequence[str]) -> dict[str, Interval]:
    """Of every set that has answers how many are given and how many fewer than at full depth, and the loss `task`."""
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for case, text, full_text in zip(cases, texts, full_depth, strict=True):
        here, full = case.is_right(text), case.is_right(full_text)
        if here is not None and full is not None:
            pairs.setdefault(case.task, []).append((here, full))
    found = {}
    for task, given_here in pairs.items():
        found[f"accuracy/{task}"] = ratio([float(here) for here, _ in given_here])
        found[f"points_lost/{task}"] = ratio([float(full) - float(here) for here, full in given_here])
    if pairs:
        found["task"] = ratio([float(full and not here) for here, full in chain.from_iterable(pairs.values())])
    return found


def _differ(output: Output, seen: Sequence[Seen]) -> float:
    differ = sum(token != full.choice for token, full in zip(output.token_ids, seen, strict=True))
    return differ / len(output.token_ids)


def _sample(llm: LLM, output: Output) -> Sample:
    detokenizer = Detokenizer(llm.tokenizer)
    texts = [detokenizer.push(token) for token in output.token_ids]
    prompt = llm.tokenizer.decode(list(output.prompt_token_ids))
    pieces = [(text, layer) for text, layer in zip(texts, output.exit_layers, strict=True)]
    return Sample(prompt, (*pieces, (detokenizer.finish(), output.report.depth)))
