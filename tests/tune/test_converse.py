"""Conversations in lock step, against the model run plainly over every one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from offramp.errors import InvalidParameter
from offramp.models import load_model
from offramp.tokenizer import Tokenizer
from offramp.tune.converse import LENGTH, MARGIN, Lines, _drawn, converse
from offramp.tune.dense import DenseTrunk
from offramp.tune.repetition import cut_loop
from offramp.tune.samples import Corpus, Sample
from offramp.tune.settings import DataSettings
from offramp.tune.synthesis import turn_key
from offramp.tune.talk import SHORTEST, Line, Rules
from offramp.tune.top import TopHead
from offramp.tune.trunk import LmHead
from tests.models.toys import VOCAB
from tests.tune.test_layerskip import Interrupted, meter
from tests.tune.toys import END, quiet, save_toy

ENDS = (END, VOCAB.index("l"), VOCAB.index("m"))
"""Letters among them: greedy answers of the toy never come to its own end."""

SETTINGS = DataSettings(
    tokens=400, batch=12, temperature=1.5, top_p=0.8, max_user_tokens=20, max_answer_tokens=SHORTEST + 8
)
PLACES = 160
NEAR = 1e-3
"""How far a logit may be off."""


class Noting(TopHead):
    """Keeps the logits it gave last."""

    last: Tensor

    def logits(self, states: Tensor) -> Tensor:
        self.last = super().logits(states)
        return self.last


class Toy(NamedTuple):
    """A model as Transformers has it and as ours."""

    model: Any
    trunk: DenseTrunk
    top: TopHead
    tokenizer: Tokenizer

    def rules(self, samples: Sequence[Sample] = (), **changes: Any) -> Rules:
        return Rules.of(self.tokenizer, ENDS, replace(SETTINGS, **changes), samples)

    def grow(self, corpus: Corpus, update: Any = quiet, **changes: Any) -> None:
        rules = self.rules(corpus.samples, **changes)
        converse(corpus, self.trunk, self.top, rules, meter(update), PLACES)

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """Transformers' own, [tokens, vocab_size]."""
        found: Tensor = self.model(torch.tensor([ids])).logits[0]
        return found


@pytest.fixture(scope="module", params=[("llama", {}), ("mistral", {"sliding_window": 6})], ids=lambda p: str(p[0]))
def talker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("talker")
    family, changes = request.param
    model = save_toy(folder, family, **changes)
    loaded = load_model(str(folder))
    assert loaded.spec.window_at(0) == changes.get("sliding_window")
    trunk = DenseTrunk(loaded.spec, loaded.weights, {}, torch.float32)
    return Toy(model, trunk, Noting(LmHead(loaded.spec, loaded.weights), loaded.spec), loaded.tokenizer)


@pytest.fixture(autouse=True)
def much_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("offramp.tune.talk.GOES_ON", 0.7)


class Moment(NamedTuple):
    """A place of a line: the conversation so far, who chooses the next token if not the template, the logits that are
    chosen from, and what is chosen."""

    ids: tuple[int, ...]
    chooser: str | None
    logits: Tensor
    chosen: int


class Watched(Lines):
    """Lines that note every moment of each, [lines][places]."""

    moments: list[list[Moment]]

    def _choose(self, place: int, lines: Sequence[Line], draw: torch.Generator) -> list[int]:
        chosen = super()._choose(place, lines, draw)
        logits = cast(Noting, self._top).last
        if not place:
            self.moments = [[] for _ in lines]
        for k, line in enumerate(lines):
            speaks = None if line._given else "user" if line.user_speaks else "model"
            self.moments[k].append(Moment(tuple(line._ids), speaks, logits[k], chosen[k]))
        return chosen


def watch(talker: Toy, **changes: Any) -> tuple[list[Sample], list[list[Moment]]]:
    lines = Watched(talker.trunk, talker.top, talker.rules(**changes), PLACES)
    return list(lines.run([0, 0])), lines.moments


def conversations(moments: Sequence[Moment]) -> list[list[Moment]]:
    """Those of a line, from the first token to the last; what a conversation leaves behind is none's."""
    found: list[list[Moment]] = []
    for moment in moments:
        if len(moment.ids) == 1:
            found.append([])
        if moment.ids:
            found[-1].append(moment)
    return found


def test_whatever_is_chosen_from_are_the_logits_of_the_conversation_alone(talker: Toy) -> None:
    _, lines = watch(talker)
    begun = 0
    for line in lines:
        assert len(line) == PLACES - 1
        begun += len(conversations(line))
        for talk in conversations(line):
            assert all(b.ids[:-1] == a.ids for a, b in pairwise(talk))
            ours = torch.stack([m.logits for m in talk])
            torch.testing.assert_close(ours, talker.logits(talk[-1].ids), rtol=0, atol=NEAR)
    assert begun > 3 * len(lines)


def in_nucleus(moment: Moment, settings: DataSettings) -> bool:
    """Whether a token is among the fewest that have `top_p` together."""
    probs = (moment.logits / settings.temperature).softmax(-1)
    likelier = probs[probs > probs[moment.chosen]].sum()
    return float(likelier) < settings.top_p + 1e-5


def chosen_by(lines: Sequence[Sequence[Moment]], who: str) -> list[Moment]:
    return [m for line in lines for m in line if m.ids and m.chooser == who]


def test_users_draw_from_the_nucleus_and_answers_are_greedy(talker: Toy) -> None:
    _, lines = watch(talker)
    users, answers = chosen_by(lines, "user"), chosen_by(lines, "model")
    assert len(users) > 300 and len(answers) > 200
    assert all(in_nucleus(m, SETTINGS) for m in users)
    assert sum(int(m.logits.argmax()) != m.chosen for m in users) > 0.1 * len(users)
    assert any(not in_nucleus(m, replace(SETTINGS, top_p=SETTINGS.top_p - 0.05)) for m in users)
    assert all(int(m.logits.argmax()) == m.chosen for m in answers)


def test_answers_are_drawn_where_that_is_asked_for(talker: Toy) -> None:
    _, lines = watch(talker, answer_temperature=2.0)
    answers = chosen_by(lines, "model")
    assert sum(int(m.logits.argmax()) != m.chosen for m in answers) > 0.2 * len(answers)
    assert any(not in_nucleus(m, SETTINGS) for m in answers)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_draws_have_the_shares_of_the_nucleus(width: int) -> None:
    draw = torch.Generator().manual_seed(0)
    probs = torch.tensor([0.1, 0.45, 0.05, 0.3, 0.1])
    logits = (2 * probs.log()).expand(4000, 5)
    counts = _drawn(logits, 2.0, 0.74, draw, width).bincount(minlength=5) / 4000
    assert counts.tolist() == pytest.approx([0, 0.6, 0, 0.4, 0], abs=0.03)
    counts = _drawn(logits, 2.0, 1.0, draw, width).bincount(minlength=5) / 4000
    assert counts.tolist() == pytest.approx(probs.tolist(), abs=0.03)
    assert _drawn(logits[:0], 2.0, 0.5, draw, width).tolist() == []


def greedy(talker: Toy, prompt: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the model itself would say all of an answer, or something as likely."""
    logits = talker.logits([*prompt, *answer])[len(prompt) - 1 : -1]
    return bool((logits[range(len(answer)), list(answer)] >= logits.max(-1).values - NEAR).all())


def loops(talker: Toy, prompt: Sequence[int], answer: tuple[int, ...]) -> bool:
    """Whether an answer is what stays of a longer one that would go on in the same way."""
    missing = SETTINGS.max_answer_tokens - len(answer)
    longer = ((*answer, *(answer[-period:] * missing)[:missing]) for period in range(1, len(answer)))
    return any(cut_loop(one) == answer and greedy(talker, prompt, one) for one in longer)


def test_answers_are_the_model_s_own(talker: Toy, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {})
    talker.grow(corpus)
    assert corpus.tokens >= SETTINGS.tokens and corpus.next > 1
    ended, cut = 0, 0
    for sample in corpus.samples:
        prompt, answer = sample.token_ids[: sample.prompt_tokens], sample.token_ids[sample.prompt_tokens :]
        assert greedy(talker, prompt, answer) and 1 < len(answer) <= SETTINGS.max_answer_tokens
        assert cut_loop(answer) == answer and not {*ENDS} & {*answer[:-1]}
        ended += answer[-1] in ENDS
        if answer[-1] not in ENDS and len(answer) < SETTINGS.max_answer_tokens:
            cut += 1
            assert loops(talker, prompt, answer) or len(answer) >= SHORTEST
    assert ended > 10 and cut > 10


def turns(talker: Toy, sample: Sample) -> list[str]:
    """What was said in a prompt, the user's turns and the answers between them, by splitting its text."""
    text = talker.tokenizer.decode(sample.token_ids[: sample.prompt_tokens])
    assert text.startswith("[user]") and text.endswith("|[assistant]")
    pairs = [pair.split("|[assistant]") for pair in text.removeprefix("[user]").split("|[user]")]
    assert pairs[-1][-1] == "" and all(len(pair) == 2 for pair in pairs)
    return [said for pair in pairs for said in pair][:-1]


def test_turns_are_new_and_have_room_and_at_times_there_is_another(talker: Toy, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {})
    talker.grow(corpus, tokens=800)
    keys, later = set(), 0
    for number, sample in enumerate(corpus.samples):
        said = turns(talker, sample)
        for turn in said[::2]:
            tokens = talker.tokenizer.encode(turn, add_special_tokens=False)
            assert turn.strip() and len(tokens) <= SETTINGS.max_user_tokens
        if len(said) > 1:
            later += 1
            # What was said until the answer before is a sample of its own.
            assert any(sample.token_ids[: len(s.token_ids)] == s.token_ids for s in corpus.samples[:number])
        keys.add(turn_key(talker.tokenizer, sample.token_ids[: sample.prompt_tokens]))
    assert later > 1 and len(keys) == len(corpus.samples)


def test_the_same_seed_gives_the_same_and_others_give_others(talker: Toy) -> None:
    def run(seed: list[int]) -> list[Sample]:
        return list(Lines(talker.trunk, talker.top, talker.rules(batch=4), PLACES).run(seed))

    once, next_batch, other = run([0, 0]), run([0, 1]), run([1, 0])
    assert run([0, 0]) == once and next_batch != once != other != next_batch


def test_an_interrupted_batch_is_begun_anew_to_the_same_end_without_a_turn_twice(talker: Toy, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if done > 100:
            raise Interrupted

    changes: dict[str, Any] = {"top_p": 0.4, "batch": 6}  # the user says the same often
    talker.grow(whole := Corpus(tmp_path / "whole", {}), **changes)
    with pytest.raises(Interrupted):
        talker.grow(Corpus(tmp_path / "cut", {}), interrupt, **changes)
    after = Corpus(tmp_path / "cut", {})
    assert 0 < after.tokens < SETTINGS.tokens
    talker.grow(after, **changes)
    assert after.path.read_bytes() == whole.path.read_bytes() and after.tokens >= SETTINGS.tokens
    assert {json.loads(line)["number"] for line in after.path.read_text().splitlines()} == {*range(after.next)}
    assert len({turn_key(talker.tokenizer, s.token_ids[: s.prompt_tokens]) for s in after.samples}) == len(
        after.samples
    )


def test_a_model_of_whose_turns_none_is_of_use_is_refused(talker: Toy, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter) as error:
        talker.grow(Corpus(tmp_path, {}), max_user_tokens=3)
    said = f"the model invents no user turns: of those in 12 lines of {PLACES} tokens none came to an answer"
    assert error.value.message == said
    assert error.value.hint == "raise `--max-user-tokens` or `--temperature`, or give a file as `--data`"


@pytest.mark.parametrize(
    ("answer", "context", "length"), [(384, 2048, LENGTH), (1000, 2048, 1000 + MARGIN), (1000, 512, 512)]
)
def test_a_line_has_room_for_the_longest_answer_if_the_model_has(
    talker: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int, context: int, length: int
) -> None:
    class Short(Lines):
        def __init__(self, trunk: DenseTrunk, top: TopHead, rules: Rules, length: int) -> None:
            lengths.append(length)
            super().__init__(trunk, top, rules, 60)

        def run(self, seed: Sequence[int]) -> Iterator[Sample]:
            seeds.append(list(seed))
            yield from super().run(seed)

    lengths, seeds = list[int](), list[list[int]]()
    monkeypatch.setattr("offramp.tune.converse.Lines", Short)
    rules = talker.rules(max_answer_tokens=answer, seed=7, tokens=60, batch=8)
    trunk = talker.trunk.original()
    trunk.spec = replace(trunk.spec, max_model_len=context)
    corpus = Corpus(tmp_path, {})
    corpus.append([Sample((5, 6, 7), 1)], 4)
    converse(corpus, trunk, talker.top, rules, meter())
    assert lengths == [length] and seeds == [[7, 5 + i] for i in range(len(seeds))] and len(seeds) > 1
