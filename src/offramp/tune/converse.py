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
from offramp.executors.torch.draw import candidates
from offramp.executors.torch.layers import Rotation
from offramp.tune.dense import DenseTrunk
from offramp.tune.replay import Replay
from offramp.tune.report import Meter
from offramp.tune.samples import Corpus, Sample
from offramp.tune.talk import Line, Rules
from offramp.tune.top import TopHead

LENGTH = 640
"""Tokens of a line, unless the longest answer takes more, or the model's context holds fewer."""

MARGIN = 256
"""What a line has room for besides."""

WIDTH = 64
"""What is attended to grows by so many places at a time."""

NARROW = 1024
"""Tokens looked at first where one is drawn; only where more of them could be kept all are."""


def converse(
    corpus: Corpus, trunk: DenseTrunk, top: TopHead, rules: Rules, meter: Meter, length: int | None = None
) -> None:
    """Let the model talk until `corpus` has the tokens asked for. An answer's number is that of its batch, and a batch
    is written as a whole: after an interruption it is begun anew.

    Raises:
        InvalidParameter: no turn comes to an answer.
    """
    settings = rules.settings
    length = min(length or max(LENGTH, settings.max_answer_tokens + MARGIN), trunk.spec.max_model_len)
    lines = Lines(trunk, top, rules, length)
    while corpus.tokens < settings.tokens:
        number, made, tokens, said = corpus.next, list[Sample](), corpus.tokens, set(rules.seen)
        for sample in lines.run([settings.seed, number]):
            made.append(sample)
            tokens += len(sample.scored)
            meter(tokens)
        corpus.append(made, number)
        # Turns that came to no answer are forgotten: who goes on after an interruption does not know them.
        rules.seen.intersection_update(said | {rules.key_of(sample) for sample in made})
        if not made:
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
    """

    def __init__(self, trunk: DenseTrunk, top: TopHead, rules: Rules, length: int) -> None:
        self._trunk, self._top, self._rules, self._length = trunk, top, rules, length
        spec, count, device = trunk.spec, rules.settings.batch, trunk.device
        shape = (spec.num_layers, count, spec.num_kv_heads, -(-length // WIDTH) * WIDTH, spec.head_dim)
        self._keys, self._values = (torch.zeros(shape, dtype=trunk.dtype, device=device) for _ in range(2))
        self._rotations = trunk.rotations(length)
        # What a step reads: the place, the token said there, and how many tokens its conversation has with it.
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._said, self._ages = torch.zeros((2, count), dtype=torch.int64, device=device)
        pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._steps = [
            Replay(lambda w=width: self._logits(w), device, pool)  # type: ignore[misc]
            for width in range(WIDTH, shape[3] + 1, WIDTH)
        ]

    @torch.no_grad()
    def run(self, seed: Sequence[int]) -> Iterator[Sample]:
        """Fill the lines; gives each answer, with all that was said before it as its prompt. `seed`: of what is
        drawn."""
        pick = np.random.default_rng(seed)
        lines = [Line(self._rules, pick) for _ in range(len(self._said))]
        draw = torch.Generator(self._trunk.device).manual_seed(int(pick.integers(2**31)))
        chosen = [0] * len(lines)
        for place in range(self._length):
            answers = [line.take(token) for line, token in zip(lines, chosen, strict=True)]
            yield from (answer for answer in answers if answer is not None)
            if place < self._length - 1:
                chosen = self._choose(place, lines, draw)
        yield from (answer for line in lines if (answer := line.cut()) is not None)

    def _choose(self, place: int, lines: Sequence[Line], draw: torch.Generator) -> list[int]:
        """What every line would say next."""
        said, ages, speaks = torch.tensor([line.last for line in lines]).unbind(1)
        self._said.copy_(said)
        self._ages.copy_(ages)
        self._place.fill_(place)
        logits, settings = self._steps[place // WIDTH](), self._rules.settings
        chosen = logits.argmax(-1)
        users = speaks.nonzero()[:, 0].to(logits.device)
        if len(users):
            chosen[users] = _drawn(logits[users], settings.temperature, settings.top_p, draw)
        others = (speaks == 0).nonzero()[:, 0].to(logits.device)
        if settings.answer_temperature and len(others):
            chosen[others] = _drawn(logits[others], settings.answer_temperature, 1.0, draw)
        listed: list[int] = chosen.tolist()
        return listed

    def _logits(self, width: int) -> Tensor:
        """Logits [lines, vocab_size] behind what was said last, of all that stands in the first `width` places."""
        distance = self._place - torch.arange(width, device=self._place.device)
        sees = (distance >= 0) & (distance < self._ages[:, None])

        def attend(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._keys[index], self._values[index]
            keys.index_copy_(2, self._place, k.transpose(1, 2))
            values.index_copy_(2, self._place, v.transpose(1, 2))
            window = self._trunk.spec.window_at(index)
            near = sees if window is None else sees & (distance < window)
            # The heads that share K and V stand in for queries of one: [lines, kv_heads, group, head_dim].
            grouped = q.view(len(q), keys.shape[1], -1, q.shape[-1])
            attended = F.scaled_dot_product_attention(
                grouped, keys[:, :, :width], values[:, :, :width], attn_mask=near[:, None, None]
            )
            return attended.reshape(len(q), 1, -1)

        rotation = Rotation(*(table.index_select(0, self._place) for table in self._rotations))
        return self._top.logits(self._top.states(self._trunk.step(self._said, rotation, attend)))


def _drawn(logits: Tensor, temperature: float, top_p: float, draw: torch.Generator, width: int = NARROW) -> Tensor:
    """Tokens [rows] drawn from logits [rows, vocab_size]: from the fewest likeliest that have `top_p` together."""
    limits = logits.new_tensor([0, top_p, 0]).expand(len(logits), 3)
    columns, values, settled = candidates(logits / temperature, limits, min(width, logits.shape[-1]))
    drawn = columns.gather(1, values.softmax(-1).multinomial(1, generator=draw))[:, 0]
    rest = (~settled).nonzero()[:, 0]
    if len(rest):
        drawn[rest] = _drawn(logits[rest], temperature, top_p, draw, logits.shape[-1])
    return drawn
