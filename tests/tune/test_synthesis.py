"""Data that the model makes itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from offramp import LLM
from offramp.errors import InvalidParameter
from offramp.models import load_model
from offramp.tokenizer import Tokenizer
from offramp.tune.repetition import Watch, cut_loop
from offramp.tune.samples import Corpus, Sample
from offramp.tune.settings import DataSettings
from offramp.tune.synthesis import invent
from offramp.tune.workshop import Workshop
from offramp.types.output import Chunk
from offramp.types.sampling import SamplingParams
from tests.cli.fake import output
from tests.tune.toys import END, quiet, toy_request


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def samples(toy: Path, work: Path, update: Any = quiet, **changes: Any) -> list[Sample]:
    request = toy_request(toy, work / "out", work=work, **changes)
    return Workshop(load_model(str(toy)), request, update).samples()


def test_an_interrupted_run_goes_on_to_the_identical_file(toy: tuple[Path, Any], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    samples(toy[0], whole)
    calls = 0

    def interrupt(done: int, total: int, text: str) -> None:
        nonlocal calls
        calls += 1
        if done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        samples(toy[0], cut, interrupt)
    assert calls > 1
    assert (cut / "data.jsonl").read_bytes() != (whole / "data.jsonl").read_bytes()
    samples(toy[0], cut, batch=3)
    assert (cut / "data.jsonl").read_bytes() == (whole / "data.jsonl").read_bytes()


def test_more_tokens_leave_what_there_is_and_fewer_take_its_beginning(toy: tuple[Path, Any], tmp_path: Path) -> None:
    few = samples(toy[0], tmp_path, tokens=500)
    many = samples(toy[0], tmp_path, tokens=2500)
    assert len(many) > len(few) > 0
    assert many[: len(few)] == few
    assert samples(toy[0], tmp_path, tokens=500) == few


class Script:
    """An `LLM` that invents `texts`, the first at the first seed and so on, and then nothing that ends."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str]) -> None:
        self.tokenizer, self._texts = tokenizer, texts

    def stream(self, prompt: list[int], sampling: SamplingParams, **_: Any) -> Any:
        assert self.tokenizer.decode(prompt) == "[user]" and sampling.seed is not None
        said = sampling.seed < len(self._texts)
        text = self._texts[sampling.seed] if said else "cut off"
        ids = (*self.tokenizer.encode(text), END)
        whole = replace(output(), text=text, token_ids=ids, finish_reason="stop" if said else "length")
        chunks = (chunk for chunk in [Chunk(text, ids, (), (), whole.finish_reason, whole)])
        return chunks


def test_turns_that_are_short_or_broken_or_cut_off_or_said_before_are_left_out(
    toy: tuple[Path, Any], tmp_path: Path
) -> None:
    tokenizer = load_model(str(toy[0])).tokenizer
    texts = ["hello there", " Hello  there ", "hi", "not \ufffd utf", "second turn", "old turn"]
    corpus = Corpus(tmp_path, {})
    old = tokenizer.encode("[user]old turn|[assistant]")
    corpus.append([Sample((*old, 5, END), len(old))], -1)
    invented = invent(cast(LLM, Script(tokenizer, texts)), DataSettings(), corpus)
    made = [next(invented), next(invented)]
    assert [tokenizer.decode(q.prompt) for q in made] == [
        "[user]hello there|[assistant]",
        "[user]second turn|[assistant]",
    ]
    assert [q.number for q in made] == [0, 4]
    with pytest.raises(InvalidParameter, match="the model invents no user turns"):
        next(invented)


def test_answers_are_the_models_own(toy: tuple[Path, Any], tmp_path: Path) -> None:
    made = samples(toy[0], tmp_path, tokens=200)
    with LLM(str(toy[0]), exits=(), dtype="float32", kv_dtype="float32", threads=1) as llm:
        prompts = [list(s.token_ids[: s.prompt_tokens]) for s in made]
        sampling = SamplingParams(max_tokens=60)
        outputs = llm.generate(prompts, sampling)
    assert [s.token_ids[s.prompt_tokens :] for s in made] == [cut_loop(o.token_ids) for o in outputs]


def test_an_answer_that_goes_round_in_circles_is_not_given_to_its_end(
    toy: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    watched = Watch.__call__

    def count(watch: Watch, token: int) -> bool:
        nonlocal written
        written += 1
        return watched(watch, token)

    monkeypatch.setattr(Watch, "__call__", count)
    made = samples(toy[0], tmp_path, tokens=600, max_answer_tokens=180, batch=1)
    with LLM(str(toy[0]), exits=(), dtype="float32", kv_dtype="float32", threads=1) as llm:
        outputs = llm.generate([list(s.token_ids[: s.prompt_tokens]) for s in made], SamplingParams(max_tokens=180))
    whole = [o.token_ids for o in outputs]
    assert [s.token_ids[s.prompt_tokens :] for s in made] == [cut_loop(ids) for ids in whole]
    assert any(len(ids) == 180 and len(cut_loop(ids)) < 100 for ids in whole)
    assert written < sum(map(len, whole)) - 180 // 4
