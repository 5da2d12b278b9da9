"""How good outputs are: beside full depth's, under full depth, and as answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import exp
from statistics import fmean

from offramp.bench.workloads import Workload
from offramp.evaluate.likelihood import Seen, likelihoods
from offramp.evaluate.similarity import rouge_l
from offramp.llm.forced import given
from offramp.llm.llm import LLM
from offramp.types.output import Output

Outputs = dict[int, Output]
"""By the number of the prompt in the workload."""


class Judge:
    """Judges outputs; what was judged once is not judged again. The `LLM` must have nothing else to do.

    A prompt's full-depth output has to be told with `learn` before any other of its outputs is judged.
    """

    def __init__(self, llm: LLM, workload: Workload) -> None:
        self._llm, self._workload = llm, workload
        self._full: Outputs = {}
        self._seen: dict[tuple[int, tuple[int, ...]], list[Seen]] = {}

    def learn(self, outputs: Outputs) -> None:
        """What full depth says to some prompts."""
        self._full.update(outputs)

    def judge(self, outputs: Outputs) -> dict[str, float]:
        """Means over prompts, in [0, 1], and `perplexity`:

        agreement   share of tokens that one full-depth pass over the same tokens would choose
        rouge_l     of the text, against that of full depth
        perplexity  of all tokens under full depth
        and the workload's own measure, where answers are known
        """
        seen = self._look(outputs)
        agree = [
            fmean([token == full.choice for token, full in zip(output.token_ids, told, strict=True)])
            for output, told in zip(outputs.values(), seen, strict=True)
        ]
        log_probs = [token.log_prob for token in chain.from_iterable(seen)]
        found = {
            "agreement": fmean(agree),
            "rouge_l": fmean([rouge_l(output.text, self._full[place].text) for place, output in outputs.items()]),
            "perplexity": exp(-fmean(log_probs)),
        }
        scores = list(self._scores(outputs))
        return {**found, self._workload.measure: fmean(scores)} if scores else found

    def _look(self, outputs: Outputs) -> list[list[Seen]]:
        new = {(place, output.token_ids): output for place, output in outputs.items()}
        missing = [(key, output) for key, output in new.items() if key not in self._seen]
        engine = self._llm.engine
        told: Sequence[list[Seen]] = likelihoods(
            engine, [given(output, engine.executor.shape) for _, output in missing]
        )
        self._seen.update(zip([key for key, _ in missing], told, strict=True))
        return [self._seen[key] for key in new]

    def _scores(self, outputs: Outputs) -> Iterable[float]:
        for place, output in outputs.items():
            completion = self._workload.prompts[place].completion
            if completion is not None:
                yield float(self._workload.score(output.text, completion))
