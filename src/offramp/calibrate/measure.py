"""What a setting does to a prompt: generate with it, then compare with one full-depth pass over the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from offramp.calibrate.path import NEVER, Observations
from offramp.calibrate.prompts import Prompt, Tokens
from offramp.calibrate.results import Found, Results, digest
from offramp.errors import OfframpError
from offramp.exits.criteria import Criterion, Signals, make_criterion
from offramp.exits.write_calibration import params_said
from offramp.llm.dial import Dial
from offramp.llm.forced import At, Forced, ForcedPass, given, in_groups, parts, top_choices
from offramp.llm.llm import LLM
from offramp.types.exits import ExitParams
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

P = TypeVar("P", Tokens, Prompt)

CHUNK = 4
"""Prompts are generated for this many full batches at a time; an interruption loses at most so many."""

OnPrompts = Callable[[int, int, int], None]
"""Told after every chunk how many prompts it had, how many of them were new, and how many tokens those gave."""


class Measurer:
    """Measures settings on prompts; what is in `results` is not measured again. Greedy, at most `max_tokens` each.

    The `LLM` must not have a profitability switch: it would turn off what is to be measured.
    """

    def __init__(self, llm: LLM, results: Results, max_tokens: int, on_prompts: OnPrompts | None = None) -> None:
        assert not llm.engine.config.profitability
        self.llm, self._results, self._on_prompts = llm, results, on_prompts
        self.max_tokens, self._sampling = max_tokens, SamplingParams(max_tokens=max_tokens)
        self._chunk, self._shape = CHUNK * llm.engine.config.max_num_seqs, llm.engine.executor.shape

    def results(self, setting: ExitParams, prompts: Sequence[Tokens]) -> Generator[Found, None, None]:
        """For each prompt in order: `tokens` generated, how many `differ` from full depth, and layers `run`."""
        yield from self._each(digest(params_said(setting)), prompts, lambda some: self._compare(some, setting))

    def answers(self, exit: ExitParams | str, prompts: Sequence[Prompt]) -> Generator[Found, None, None]:
        """For each prompt in order: the `text` generated, its `tokens`, and layers `run`.

        `exit` is a setting or `off`.
        """
        said = exit if isinstance(exit, str) else params_said(exit)
        yield from self._each(digest({"texts": said}), prompts, lambda some: self._answer(some, exit))

    def observe(self, name: str, options: Mapping[str, Any], prompts: Sequence[Tokens]) -> Observations:
        """What every exit says, by the criterion `name`, about full-depth outputs."""
        criterion, shape = make_criterion(name, options), self.llm.engine.executor.shape
        asked = digest({"criterion": name, "options": dict(options)})
        found = list(self._each(asked, prompts, lambda some: self._observe(some, criterion)))
        tests = [test for result in found for test in result["tests"]]
        exits = len(shape.exit_layers)
        values = np.array(tests, dtype=np.float64).reshape(-1, exits, 2)
        weights = [1 / (len(found) * result["tokens"]) for result in found for _ in result["tests"]]
        texts = np.repeat(np.arange(len(found)), [len(result["tests"]) for result in found])
        return Observations(
            layers=shape.exit_layers,
            depth=shape.num_layers,
            confidences=values[:, :, 0],
            differs=values[:, :, 1] > 0,
            weights=np.array(weights, np.float64),
            texts=texts,
            count=len(found),
        )

    def _each(
        self, setting: str, prompts: Sequence[P], measure: Callable[[list[P]], list[Found]]
    ) -> Generator[Found, None, None]:
        coming = iter(prompts)
        while chunk := list(islice(coming, self._chunk)):
            missing = [p for p in chunk if self._results.find(setting, digest(p)) is None]
            found = measure(missing) if missing else []
            for prompt, result in zip(missing, found, strict=True):
                self._results.add(setting, digest(prompt), result)
            if self._on_prompts is not None:
                self._on_prompts(len(chunk), len(found), sum(result["tokens"] for result in found))
            for prompt in chunk:
                known = self._results.find(setting, digest(prompt))
                assert known is not None
                yield known

    def _generate(self, prompts: list[Tokens], exit: Dial) -> list[Output]:
        outputs = self.llm.generate(prompts, self._sampling, exit)
        if any(output.finish_reason == "error" for output in outputs):
            raise OfframpError("the model gave no finite number for a prompt", hint="check its weights")
        return outputs

    def _compare(self, prompts: list[Tokens], setting: ExitParams) -> list[Found]:
        outputs = self._generate(prompts, setting)
        chosen = top_choices(self.llm.engine, [given(output, self._shape) for output in outputs])
        return [
            {
                "tokens": len(output.token_ids),
                "differ": sum(a != b for a, b in zip(output.token_ids, choices, strict=True)),
                "run": sum(output.report.layers_run),
            }
            for output, choices in zip(outputs, chosen, strict=True)
        ]

    def _answer(self, prompts: list[Prompt], exit: Dial) -> list[Found]:
        outputs = self._generate([prompt.tokens for prompt in prompts], exit)
        return [
            {
                "tokens": len(output.token_ids),
                "run": sum(output.report.layers_run),
                "text": output.text,
            }
            for output in outputs
        ]

    def _observe(self, prompts: list[Tokens], criterion: Criterion) -> list[Found]:
        outputs = self._generate(prompts, "off")
        found: list[Found] = []
        for first, texts in in_groups([given(output, self._shape) for output in outputs], self.llm.engine):
            with ForcedPass(self.llm.engine, *parts(texts)) as forced:
                for number, text in enumerate(texts):
                    count = len(outputs[first + number].token_ids)
                    found.append({"tokens": count, "tests": self._tests(forced, number, text, criterion)})
        return found

    def _tests(
        self, forced: ForcedPass, number: int, text: Forced, criterion: Criterion
    ) -> list[list[tuple[float, int]]]:
        """For every output token but the first, which no exit chooses: (confidence, differs) at every exit."""
        executor = self.llm.engine.executor
        rows = [At(number, position) for position in range(text.start, len(text.tokens) - 1)]
        earlier: list[tuple[Signals, ...]] = [()] * len(rows)
        tests: list[list[tuple[float, int]]] = [[] for _ in rows]
        for boundary, layer in enumerate(executor.shape.exit_layers, start=1):
            scores = forced.score_exit(boundary, rows, criterion.needs)
            signals = [
                Signals(boundary, layer, i + 1, scored.token, scored.features, before)
                for i, (scored, before) in enumerate(zip(scores, earlier, strict=True))
            ]
            for i, confidence in enumerate(criterion.confidence(signals)):
                token = signals[i].token
                sure = NEVER if confidence is None or token is None else float(confidence)
                tests[i].append((sure, int(token != text.tokens[rows[i].position + 1])))
            earlier = [(*before, signal) for before, signal in zip(earlier, signals, strict=True)]
        return tests
