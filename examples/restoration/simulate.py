"""What leaving early does to a T5's answers: CALM's experiment, with every layer computed and time left aside.

    python -m examples.restoration.simulate t5-restore --data restoration/test.jsonl --out report.json

MODEL is `t5-restore`, or a folder that `offramp tune --recipe calm` has written. Answers are greedy, in float32. A
token leaves at the first exit that a criterion is sure at, and the K and V of the layers above are filled from its
hidden state. The oracle leaves at the first exit that chooses what the top would choose.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.evaluate.similarity import chrf, longest_common, rouge_l
from offramp.exits.read import read_pack
from offramp.models import resolve
from offramp.tokenizer import Tokenizer, tokenizer_from_folder
from offramp.tune.calm import classify
from offramp.tune.pairs import Texts, read_texts
from offramp.tune.t5 import DenseT5
from offramp.tune.t5_files import read_t5
from offramp.tune.t5_shape import END, PAD
from offramp.tune.t5_steps import T5Writer

SETTINGS: dict[str, Sequence[float]] = {
    **{"off": (1.0,), "oracle": (1.0,), "max_prob": (0.5, 0.7, 0.9, 0.99), "margin": (0.3, 0.6, 0.9, 0.98)},
    **{"classifier": (0.5, 0.7, 0.9), "saturation": (0.95, 0.98, 0.99)},
}
"""Criterion -> thresholds."""

BATCH, LONGEST = 64, 160
"""Answers side by side, and the tokens that one has at most."""


class Exits(NamedTuple):
    """A model, the layers of its exits and their classifiers."""

    model: DenseT5
    layers: tuple[int, ...]
    classifiers: Sequence[dict[str, Tensor]]


class Answer(NamedTuple):
    """Tokens of an answer, the end included, and the layer that each was chosen behind."""

    tokens: list[int]
    layers: list[int]


@dataclass(frozen=True)
class Line:
    """A line of the report: means over all tokens (`layer`) or answers.

    `rouge_l`, `chrf`, `exact` and `written` compare with what was meant; `written` is ROUGE-L of words as they are
    written, with capitals and punctuation. `consistent` is ROUGE-L to full depth's answers (1 - CALM's textual
    inconsistency), `same` the share of answers that are full depth's, and `agree` the share of their tokens, place by
    place.
    """

    criterion: str
    threshold: float
    layer: float
    rouge_l: float
    written: float
    chrf: float
    exact: float
    consistent: float
    same: float
    agree: float


class Leaving:
    """Says which tokens of a step leave, by a criterion."""

    def __init__(self, exits: Exits, criterion: str, threshold: float, tokens: int) -> None:
        self._exits, self._criterion, self._threshold = exits, criterion, threshold
        self.layers = torch.full((tokens,), exits.model.spec.num_layers)
        self._before: Tensor | None = None

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """See `offramp.tune.t5_steps.Leave`."""
        if layer in self._exits.layers:
            sure = self._confidence(layer, hidden) >= self._threshold
            self.layers = torch.where(sure & (self.layers > layer), layer, self.layers)
        return self.layers <= layer

    def _confidence(self, layer: int, hidden: Tensor) -> Tensor:
        model, before = self._exits.model, self._before
        if self._criterion == "saturation":
            self._before = hidden
            return hidden.new_zeros(len(hidden)) if before is None else F.cosine_similarity(before, hidden, dim=-1)
        if self._criterion == "classifier":
            place = self._exits.layers.index(layer)
            return torch.sigmoid(classify(self._exits.classifiers[place : place + 1], model.normed(hidden)[None]))[0]
        first, second = model.logits(hidden).softmax(-1).topk(2).values.unbind(-1)
        return first - second if self._criterion == "margin" else first


class Oracle:
    """Leaves at the first exit that chooses what the top does, which `Seen` has found out."""

    def __init__(self, layers: Tensor) -> None:
        self.layers = layers

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """See `offramp.tune.t5_steps.Leave`."""
        return self.layers <= layer


class Seen:
    """Leaves nowhere, and keeps what each exit chooses."""

    def __init__(self, exits: Exits) -> None:
        self._exits = exits
        self._choices: list[Tensor] = []

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """See `offramp.tune.t5_steps.Leave`."""
        if layer in self._exits.layers:
            self._choices.append(self._exits.model.logits(hidden).argmax(-1))
        return torch.zeros(len(hidden), dtype=torch.bool)

    def first_right(self, top: Tensor) -> Tensor:
        """The first layer of an exit that chooses `top`, or the last layer."""
        agree = torch.stack([*(choice == top for choice in self._choices), torch.ones_like(top, dtype=torch.bool)])
        return torch.tensor([*self._exits.layers, self._exits.model.spec.num_layers])[agree.int().argmax(0)]


@torch.no_grad()
def answers(
    exits: Exits, sources: Sequence[Sequence[int]], criterion: str, threshold: float, *, first_leaves: bool = True
) -> list[Answer]:
    """The answers to `sources`, all of which end, side by side. In CALM the first token may leave, too; in offramp it
    is the prompt's, and runs all layers."""
    model = exits.model
    lengths = torch.tensor([len(source) for source in sources])
    ids = torch.full((len(sources), int(lengths.max())), PAD)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source)
    writer = T5Writer(model, model.encode(ids, lengths), LONGEST)
    found = [Answer([], []) for _ in sources]
    rows, tokens = torch.arange(len(sources)), torch.full((len(sources),), PAD)
    for step in range(LONGEST):
        leave: Leaving | Oracle
        if criterion == "oracle":
            seen = Seen(exits)
            top = model.logits(writer.step(tokens, seen)).argmax(-1)
            writer.back()
            leave = Oracle(seen.first_right(top))
        else:
            # A threshold that no confidence reaches: every token runs all layers.
            never = criterion == "off" or (step == 0 and not first_leaves)
            leave = Leaving(exits, criterion, 2.0 if never else threshold, len(tokens))
        tokens = model.logits(writer.step(tokens, leave)).argmax(-1)
        for row, token, layer in zip(rows.tolist(), tokens.tolist(), leave.layers.tolist(), strict=True):
            found[row].tokens.append(token)
            found[row].layers.append(layer)
        goes_on = tokens != END
        if not goes_on.any():
            break
        if not goes_on.all():
            (kept,) = torch.nonzero(goes_on, as_tuple=True)
            rows, tokens = rows[kept], tokens[kept]
            writer.keep(kept)
    return found


def report(exits: Exits, tokenizer: Tokenizer, texts: Sequence[Texts]) -> Iterator[Line]:
    """A line for each criterion and threshold; the first is full depth."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].source))
    sources = [[*tokenizer.encode(texts[i].source, add_special_tokens=False), END] for i in order]
    full: list[list[int]] = []
    for criterion, thresholds in SETTINGS.items():
        for threshold in thresholds:
            parts = [sources[i : i + BATCH] for i in range(0, len(sources), BATCH)]
            found = [answer for part in parts for answer in answers(exits, part, criterion, threshold)]
            full = full or [answer.tokens for answer in found]
            pairs = [(answer.tokens, tokens) for answer, tokens in zip(found, full, strict=True)]
            written = [(tokenizer.decode(a.tokens), texts[i].target) for a, i in zip(found, order, strict=True)]
            layers = [layer for answer in found for layer in answer.layers]
            yield Line(
                criterion,
                threshold,
                sum(layers) / len(layers),
                mean([rouge_l(*pair) for pair in written]),
                mean([as_written(*pair) for pair in written]),
                mean([chrf(*pair) for pair in written]),
                mean([text == target for text, target in written]),
                mean([rouge_l(tokenizer.decode(a), tokenizer.decode(b)) for a, b in pairs]),
                mean([a == b for a, b in pairs]),
                mean([sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b)) for a, b in pairs]),
            )


def as_written(text: str, target: str) -> float:
    """F1 of the longest common subsequence of what stands between spaces."""
    words, wanted = text.split(), target.split()
    return 2 * longest_common(words, wanted) / max(1, len(words) + len(wanted))


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def read_exits(folder: Path) -> Exits:
    """The model in a folder, and its exits."""
    spec, weights = read_t5(str(folder))
    pack, names = read_pack(folder), ("classifier.weight", "classifier.bias")
    classifiers = [{n: torch.tensor(pack.tensor(layer, n)).float() for n in names} for layer in pack.layers]
    return Exits(DenseT5(spec, weights, torch.float32), pack.layers, classifiers)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What leaving early does to a T5's answers.")
    parser.add_argument("model", metavar="MODEL", help="`t5-restore`, or a folder of the recipe `calm`")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="lines of source and target")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="records (default: 500)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the report goes, as JSON")
    args = parser.parse_args(arguments)
    folder, lines = resolve(args.model).path, []
    for line in report(read_exits(folder), tokenizer_from_folder(folder), read_texts(args.data)[: args.count]):
        lines.append(asdict(line))
        print("  ".join(f"{name} {v:.4f}" if isinstance(v, float) else v for name, v in lines[-1].items()), flush=True)
        args.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
