"""Conversations of a model with itself, a thousand and more at once in lock step: `--data self` where the engine could
not keep the device busy.

A batch has lines, and a line one conversation after another. All lines write their token of a step at the same place of
a dense store, and a conversation sees what its line holds since it began: rotary embeddings tell distances alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.errors import InvalidParameter
from offramp.tune.dense import DenseTrunk
from offramp.tune.report import Meter
from offramp.tune.samples import Corpus, Sample
from offramp.tune.talk import Line, Rules
from offramp.tune.top import TopHead

LENGTH = 640
"""Tokens of a line, unless the longest answer takes more, or the model's context holds fewer."""

MARGIN = 256
"""What a line has room for besides."""


def converse(
    corpus: Corpus, trunk: DenseTrunk, top: TopHead, rules: Rules, meter: Meter, length: int | None = None
) -> None:
    """Let the model talk until `corpus` has the tokens asked for. An answer's number is that of its batch.

    Raises:
        InvalidParameter: no turn comes to an answer.
    """
    settings = rules.settings
    length = min(length or max(LENGTH, settings.max_answer_tokens + MARGIN), trunk.spec.max_model_len)
    while corpus.tokens < settings.tokens:
        number = corpus.next
        for sample in Lines(trunk, top, rules, length, [settings.seed, number]).run():
            corpus.append(sample, number)
            meter(corpus.tokens)
        if corpus.next == number:
            raise InvalidParameter(
                f"the model invents no user turns: of those in {settings.batch} lines of {length} tokens none came to "
                "an answer",
                param="data",
                hint="raise `--max-user-tokens` or `--temperature`, or give a file as `--data`",
            )


class Lines:
    """A batch of lines.

    Args:
        trunk, top: the model, on the device that is to compute.
        rules: of what is said; `settings.batch` is the number of lines.
        length: tokens of a line.
        seed: of what is drawn.
    """

    def __init__(self, trunk: DenseTrunk, top: TopHead, rules: Rules, length: int, seed: Sequence[int]) -> None:
        self._trunk, self._top, self._settings, self._length = trunk, top, rules.settings, length
        pick = np.random.default_rng(seed)
        self._lines = [Line(rules, pick) for _ in range(rules.settings.batch)]
        self._draw = torch.Generator(trunk.device).manual_seed(int(pick.integers(2**31)))
        spec, count = trunk.spec, len(self._lines)
        shape = (spec.num_layers, count, spec.num_kv_heads, length, spec.head_dim)
        self._keys, self._values = (torch.zeros(shape, dtype=trunk.dtype, device=trunk.device) for _ in range(2))

    @torch.no_grad()
    def run(self) -> Iterator[Sample]:
        """Fill the lines; gives each answer, with all that was said before it as its prompt."""
        chosen = [0] * len(self._lines)
        for place in range(self._length):
            answers = [line.take(token) for line, token in zip(self._lines, chosen, strict=True)]
            yield from (answer for answer in answers if answer is not None)
            if place < self._length - 1:
                chosen = self._choose(place)
        yield from (answer for line in self._lines if (answer := line.cut()) is not None)

    def _choose(self, place: int) -> list[int]:
        """What every line would say next."""
        device = self._trunk.device
        last = torch.tensor([line.last for line in self._lines], device=device)
        said, ages = last.unbind(1)
        distance = torch.arange(place, -1, -1, device=device)
        sees = distance < ages[:, None]

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._keys[index], self._values[index]
            keys[:, :, place], values[:, :, place] = k[:, 0], v[:, 0]
            window = self._trunk.spec.window_at(index)
            near = sees if window is None else sees & (distance < window)
            # The heads that share K and V stand in for queries of one: [lines, kv_heads, group, head_dim].
            grouped = q.view(len(q), keys.shape[1], -1, q.shape[-1])
            attended = F.scaled_dot_product_attention(
                grouped, keys[:, :, : place + 1], values[:, :, : place + 1], attn_mask=near[:, None, None]
            )
            return attended.reshape(len(q), 1, -1)

        logits = self._top.logits(self._top.states(self._trunk.step(said, place, attend)))
        chosen = logits.argmax(-1)
        users = torch.tensor([line.user_speaks for line in self._lines], device=device)
        turn = self._settings
        chosen[users] = self._drawn(logits[users], turn.temperature, turn.top_p)
        if turn.answer_temperature:
            chosen[~users] = self._drawn(logits[~users], turn.answer_temperature, 1.0)
        listed: list[int] = chosen.tolist()
        return listed

    def _drawn(self, logits: Tensor, temperature: float, top_p: float) -> Tensor:
        """Tokens [rows] drawn from logits [rows, vocab_size]: from the fewest that have `top_p` together."""
        probs, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
        probs *= probs.cumsum(-1) - probs < top_p
        picked = probs.multinomial(1, generator=self._draw) if len(probs) else order[:, :1]
        return order.gather(1, picked)[:, 0]
