"""Pairs as tokens: read, stored, dealt and put side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp.errors import InvalidParameter
from offramp.tune.pairs import Pairs, Texts, deal_pairs, load_pairs, make_pairs, pair_batch, read_texts


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def some(count: int = 300) -> Pairs:
    texts = [
        Texts("abcdefghij"[: 1 + i % 9] * 2, f"{i // 2}".rjust(3, "0")[: 1 + i // 2 % 3] + f"{i // 2}")
        for i in range(count)
    ]
    return make_pairs(texts, encode, b"{}", "hash", 20)


def test_tokens_are_those_of_the_texts_and_end() -> None:
    pairs = make_pairs(
        [Texts("ab", "xyz"), Texts("c", "xyz"), *(Texts("s", str(i)) for i in range(100))], encode, b"", "", 9
    )
    assert len(pairs.targets.ends) == 101 and list(pairs.target_of[:3]) == [0, 0, 1]
    batch = pair_batch(pairs, np.array([0, 1, 2]))
    assert batch.source[:, :3].tolist() == [[97, 98, 1], [99, 1, 0], [115, 1, 0]] and batch.source.shape == (3, 8)
    assert batch.source_lengths.tolist() == [3, 2, 2]
    assert batch.given[:, :4].tolist() == [[0, 120, 121, 122], [0, 120, 121, 122], [0, 48, 1, 0]]
    assert batch.rows.tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17]
    assert batch.next.tolist() == [120, 121, 122, 1] * 2 + [48, 1]


def test_a_target_is_held_out_with_all_its_sources() -> None:
    pairs = some()
    apart, learnt = pairs.numbers(held_out=True), pairs.numbers(held_out=False)
    assert len(apart) and len(apart) + len(learnt) == 300
    assert not set(pairs.target_of[apart]) & set(pairs.target_of[learnt])
    assert len(pairs.targets.ends) == 150


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    pairs = some()
    pairs.save(tmp_path / "pairs.npz")
    again = load_pairs(tmp_path / "pairs.npz")
    assert again.identity == pairs.identity and (again.tokenizer, again.sha256) == (b"{}", "hash")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    for name in ("other.npz", "none.npz"):
        with pytest.raises(InvalidParameter, match="no prepared pairs"):
            load_pairs(tmp_path / name)


def test_an_epoch_deals_every_pair_once_in_steps_of_like_length() -> None:
    pairs = some()
    learnt = pairs.numbers(held_out=False)
    dealt = deal_pairs(pairs, learnt, 60, 2, 7)
    half = len(dealt) // 2
    for epoch in (dealt[:half], dealt[half:]):
        assert sorted(np.concatenate(epoch)) == list(learnt)
    lengths = [pairs.targets.lengths_of(pairs.target_of[step]) for step in dealt]
    assert max(int(found.sum()) for found in lengths) < 60 + 8
    assert sum(int(found.max() - found.min()) <= 1 for found in lengths) > 0.9 * len(dealt)
    same, other = deal_pairs(pairs, learnt, 60, 2, 7), deal_pairs(pairs, learnt, 60, 2, 8)
    assert all(np.array_equal(a, b) for a, b in zip(dealt, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(dealt, other, strict=True))


def test_pairs_that_are_too_long_are_left_out_and_too_few_refused() -> None:
    texts = [*(Texts("s", str(i)) for i in range(100)), Texts("s" * 9, "0"), Texts("s", "t" * 9)]
    assert len(make_pairs(texts, encode, b"", "", 9).target_of) == 100
    with pytest.raises(InvalidParameter, match="too few"):
        make_pairs(texts[:1], encode, b"", "", 9)


@pytest.mark.parametrize(
    "line", ["{", '{"source": "a"}', '{"source": "", "target": "b"}', '["a", "b"]', '{"source": 1, "target": "b"}']
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n' + line)
    with pytest.raises(InvalidParameter, match="line 2"):
        read_texts(path)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_texts(tmp_path / "none.jsonl")
