"""What a setting may lose: the losses that a risk can promise, each in [0, 1] for a prompt.

`disagreement` is the share of the tokens generated for the prompt that differ from one exact full-depth pass over the
same tokens. `task` asks for the right completion, and is 1 where full depth gives it and the setting does not, else 0.
What a setting gets right and full depth does not is not set against that, so the share of prompts that a setting
answers rightly falls by no more than its expected loss.

`text` and `reference` are the two forms of CALM (Schuster et al. 2022, section 3), over whole texts, with ROUGE-L.
`text` is textual consistency, 1 - ROUGE-L between what the setting and what full depth wrote, and needs no completions.
`reference` is risk consistency: by how much the setting's ROUGE-L with the completion is below full depth's, or 0.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, NamedTuple, Protocol

from offramp.calibrate.answers import check_room, same_answer
from offramp.calibrate.measure import Measurer
from offramp.calibrate.prompts import Prompt
from offramp.calibrate.rouge import rouge_l
from offramp.errors import InvalidParameter
from offramp.types.exits import ExitParams

LossName = Literal["disagreement", "task", "text", "reference"]
LOSSES: tuple[LossName, ...] = ("disagreement", "task", "text", "reference")
COMPLETED: tuple[LossName, ...] = ("task", "reference")
"""Losses that compare with completions."""


class Lost(NamedTuple):
    """A prompt's loss under a setting, how many `tokens` were generated for it, and how many layers were `run`."""

    loss: float
    tokens: int
    run: int


class Loss(Protocol):
    """A loss, and how it is measured.

    Attributes:
        whole: whether one token that differs may lose the whole prompt, not its share of it.
        runs: generations for each prompt and setting.
        of_what: what a mean loss is a share of, in words.
    """

    whole: bool
    runs: int
    of_what: str

    def of(self, setting: ExitParams, prompts: Sequence[Prompt]) -> Generator[Lost, None, None]:
        """What each prompt loses, in order."""
        ...


class Disagreement:
    """The share of tokens that differ from full depth."""

    whole, runs, of_what = False, 1, "of tokens differ"

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer

    def of(self, setting: ExitParams, prompts: Sequence[Prompt]) -> Generator[Lost, None, None]:
        """What each prompt loses, in order."""
        for found in self._measurer.results(setting, [prompt.tokens for prompt in prompts]):
            yield Lost(found["differ"] / found["tokens"], found["tokens"], found["run"])


class TextLoss:
    """What differs between the texts that full depth and a setting write: a base of losses that compare the two."""

    whole, runs, of_what = False, 2, "of the text differs"

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer

    def of(self, setting: ExitParams, prompts: Sequence[Prompt]) -> Generator[Lost, None, None]:
        """What each prompt loses, in order."""
        full_depth = self._measurer.answers("off", prompts)
        for prompt, full, found in zip(prompts, full_depth, self._measurer.answers(setting, prompts), strict=True):
            yield Lost(self._loss(full["text"], found["text"], prompt), found["tokens"], found["run"])

    def _loss(self, full: str, text: str, prompt: Prompt) -> float:
        return 1 - rouge_l(text, full)


class ReferenceLoss(TextLoss):
    """Likeness to completions that full depth has and a setting lacks."""

    of_what = "of the likeness to completions is lost"

    def _loss(self, full: str, text: str, prompt: Prompt) -> float:
        wanted = prompt.completion or ""
        return max(0.0, rouge_l(full, wanted) - rouge_l(text, wanted))


class TaskLoss(TextLoss):
    """Right completions of full depth that a setting does not give."""

    whole, of_what = True, "of answers are lost"

    def _loss(self, full: str, text: str, prompt: Prompt) -> float:
        return float(_right(full, prompt) and not _right(text, prompt))


def make_loss(name: LossName, measurer: Measurer) -> Loss:
    """The loss of this name."""
    if name == "disagreement":
        return Disagreement(measurer)
    return {"task": TaskLoss, "text": TextLoss, "reference": ReferenceLoss}[name](measurer)


def check_prompts(name: LossName, prompts: Sequence[Prompt], some: Sequence[Prompt], measurer: Measurer) -> None:
    """Check that a loss can be measured on some prompts, and that there is something to lose on `some` of them.

    Raises:
        InvalidParameter: the loss is one of `COMPLETED`, and a prompt has no completion or one that is too long; or it
            is `task`, and full depth gives none of `some`.
    """
    if name not in COMPLETED:
        return
    completions = [prompt.completion for prompt in prompts if prompt.completion is not None]
    if missing := len(prompts) - len(completions):
        raise InvalidParameter(
            f"the loss `{name}` needs completions, and {missing} of {len(prompts)} prompts have none",
            param="data",
            hint='give `.jsonl` files with lines of the form {"prompt": "...", "completion": "..."}',
        )
    check_room(completions, measurer.llm.tokenizer, measurer.max_tokens)
    found = measurer.answers("off", some)
    if name == "task" and not any(_right(full["text"], prompt) for full, prompt in zip(found, some, strict=True)):
        raise InvalidParameter(
            f"full depth gives the right completion for none of {len(some)} prompts, so there is nothing to lose",
            param="data",
            hint="give prompts of a task that the model was tuned for",
        )


def _right(text: str, prompt: Prompt) -> bool:
    return same_answer(text, prompt.completion or "")
