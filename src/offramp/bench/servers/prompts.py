"""Prompts for servers, as token ids: the same for all, and none twice, so that no cache of prefixes knows one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from offramp.bench.load.samples import Dataset, Sample, draw
from offramp.errors import InvalidParameter
from offramp.evaluate.tasks import TASKS
from offramp.models import Progress
from offramp.tokenizer import Tokenizer


class Prompts:
    """The prompts of a set or a file, over and over, each with a number before it.

    Raises:
        InvalidParameter: it has none that are short enough.
    """

    def __init__(
        self, dataset: str, tokenizer: Tokenizer, longest: int, new_tokens: int, progress: Progress | None = None
    ) -> None:
        known = dataset in TASKS
        name, path = (dataset, None) if known else ("custom", Path(dataset))
        kept = Dataset(name, path, count=10_000, template=False, shuffle=False, oversample=False)
        self._texts = [str(sample.prompt) for sample in draw(kept, None, progress)]
        self._tokenizer, self._longest, self._new_tokens = tokenizer, longest, new_tokens
        if not any(len(self._ids(0, text)) <= longest for text in self._texts):
            raise InvalidParameter(
                f"no prompt of `{dataset}` has at most {longest} tokens", param="max_prompt", hint="raise it"
            )
        self._all = self._endless()

    def take(self, number: int) -> list[Sample]:
        """The next few."""
        return [next(self._all) for _ in range(number)]

    def _endless(self) -> Iterator[Sample]:
        for number in count():
            ids = self._ids(number, self._texts[number % len(self._texts)])
            if len(ids) <= self._longest:
                yield Sample(ids, len(ids), self._new_tokens)

    def _ids(self, number: int, text: str) -> list[int]:
        text = f"({number}) {text}"
        if self._tokenizer.has_chat_template:
            turns = [{"role": "user", "content": text}]
            return self._tokenizer.encode(self._tokenizer.apply_chat_template(turns), add_special_tokens=False)
        return self._tokenizer.encode(text)
