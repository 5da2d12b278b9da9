"""What `offramp bench paper` has a model do: prompts, how long an answer may be, and how good an answer is.

A model that comes with a task has an entry in `SHIPPED`; any other runs on prompts of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from offramp.calibrate.answers import same_answer
from offramp.calibrate.prompts import Prompt, read_prompts
from offramp.errors import InvalidParameter
from offramp.evaluate.similarity import rouge_l
from offramp.models.cache import sha256_of
from offramp.tokenizer import Tokenizer

MAX_TOKENS = 128
"""Most tokens of an answer to prompts of one's own."""

Score = Callable[[str, str], float]
"""How good a text, the first, is where the second is right: from 0 to 1."""


@dataclass(frozen=True)
class Workload:
    """Prompts for a model, from a file with the SHA-256 `digest`. `measure` names what `score` says in one word."""

    name: str
    digest: str
    prompts: tuple[Prompt, ...]
    max_tokens: int
    measure: str = "right"
    score: Score = same_answer


@dataclass(frozen=True)
class Shipped:
    """A task that comes with offramp for one model: its exit pack, its prompts, and the engines that can run it.

    The prompts are a file that `offramp.calibrate.prompts` reads.
    """

    name: str
    pack: str
    prompts: Path
    max_tokens: int
    peers: tuple[str, ...]
    measure: str = "right"
    score: Score = same_answer


SHIPPED: Mapping[str, Shipped] = {
    "smollm2-135m": Shipped(
        "log-triage",
        "log-triage",
        Path(__file__).with_name("log_triage.jsonl"),
        130,
        ("transformers", "vllm", "llama.cpp"),
    ),
    "t5-restore": Shipped(
        "restoration",
        "t5-restore",
        Path(__file__).with_name("restoration.jsonl"),
        128,
        ("transformers",),
        "ROUGE-L",
        rouge_l,
    ),
}
"""By the model's alias. The files have the first 128 lines of the test sets of `examples/log_triage` and
`examples/restoration`."""


def choose_exits(model: str, exits: list[int] | str | None, data: Path | None) -> list[int] | str | None:
    """The exits to measure: as given, else those of the task that comes with the model.

    Raises:
        InvalidParameter: prompts of one's own, and no exits that were made for them.
    """
    if exits is not None:
        return exits
    if data is not None and model in SHIPPED:
        raise InvalidParameter(
            f"`--data` needs `--exits`: by default `{model}` runs with the exits of a task of its own",
            param="exits",
            hint=f"give the exits made for such prompts, or leave out `--data` to run {SHIPPED[model].name}",
        )
    return SHIPPED[model].pack if model in SHIPPED else None


def read_workload(model: str, tokenizer: Tokenizer, data: Path | None, max_tokens: int | None) -> Workload:
    """The prompts of a file, or of the task that comes with the model.

    Raises:
        InvalidParameter: there is no such task, or the file cannot be read or holds no prompt.
    """
    shipped = SHIPPED.get(model)
    if data is not None:
        prompts = tuple(read_prompts([data], tokenizer))
        if not prompts:
            raise InvalidParameter(f"`{data}` holds no prompt", param="data")
        return Workload(data.name, sha256_of(data), prompts, max_tokens or MAX_TOKENS)
    if shipped is None:
        raise InvalidParameter(
            f"no task comes with the model `{model}`",
            param="data",
            hint=f"give `--data FILE`, or one of the models {', '.join(f'`{name}`' for name in SHIPPED)}",
        )
    prompts = tuple(read_prompts([shipped.prompts], tokenizer))
    return Workload(
        shipped.name,
        sha256_of(shipped.prompts),
        prompts,
        max_tokens or shipped.max_tokens,
        shipped.measure,
        shipped.score,
    )
