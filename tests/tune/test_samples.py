"""Training data on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offramp.errors import InvalidParameter
from offramp.tune.samples import Corpus, Sample, count_scored, first_samples

A, B, C = Sample((1, 2, 3, 4), 2), Sample((5, 6, 7), 1), Sample((8, 9), 1)


def test_a_corpus_comes_back_as_it_was_written(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {"seed": 1})
    for samples, number in (([A], 0), ([], 1), ([B, C], 4)):
        corpus.append(samples, number)
    again = Corpus(tmp_path, {"seed": 1})
    assert (again.samples, again.next, again.tokens) == ([A, B, C], 5, 2 + 2 + 1)
    first = json.loads(again.path.read_text().splitlines()[0])
    assert first == {"token_ids": [1, 2, 3, 4], "prompt_tokens": 2, "number": 0}


def test_a_line_that_was_left_half_written_is_cut_off(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, {})
    corpus.append([A], 0)
    whole = corpus.path.read_bytes()
    corpus.path.write_bytes(whole + b'{"token_ids": [1, 2')
    assert Corpus(tmp_path, {}).samples == [A]
    assert corpus.path.read_bytes() == whole


def test_data_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Corpus(tmp_path, {"seed": 1, "top_p": 1.0}).append([A], 0)
    with pytest.raises(InvalidParameter) as error:
        Corpus(tmp_path, {"seed": 2, "top_p": 1.0})
    assert error.value.message == f"`{tmp_path / 'data.jsonl'}` was made with `seed` 1, and now it is 2"


def test_scored_positions_are_those_whose_successor_is_in_the_answer() -> None:
    assert [A.token_ids[p + 1] for p in A.scored] == [3, 4]
    assert count_scored([A, B, C]) == 5


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (99, 3)])
def test_the_shortest_beginning_with_enough_tokens(tokens: int, count: int) -> None:
    assert first_samples([A, B, C], tokens) == [A, B, C][:count]


def test_about_one_sample_in_twenty_is_held_out_whatever_else_there_is() -> None:
    samples = [Sample((i, i + 1, i + 2), 1) for i in range(2000)]
    held = [s for s in samples if s.held_out]
    assert 60 < len(held) < 140
    assert [s for s in samples[500:] if s.held_out] == [s for s in held if s.token_ids[0] >= 500]
