"""ROUGE-L and chrF: against their published implementations, and subsequences against the textbook."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluate.similarity import chrf, longest_common, rouge_l

# What sacreBLEU 2.5 (CHRF, sentence_score / 100) and rouge-score 0.1 (rougeL, fmeasure) give.
PUBLISHED = [
    ("The cat sat on the mat.", "A cat is on the mat!", 0.487565617299922, 0.6666666666666666),
    ("Rivers: Nile, Amazon", "Rivers: Nile, Amazon and Rhine.", 0.6811411819533023, 0.75),
    ("42 is the answer", "so the answer is 42", 0.5978715719694689, 0.4444444444444444),
]

WORDS = st.lists(st.sampled_from("abcd"), max_size=20)


@pytest.mark.parametrize(("text", "reference", "characters", "words"), PUBLISHED)
def test_scores_are_the_published_ones(text: str, reference: str, characters: float, words: float) -> None:
    assert chrf(text, reference) == pytest.approx(characters, abs=1e-12)
    assert rouge_l(text, reference) == pytest.approx(words, abs=1e-12)


def test_words_of_all_scripts_count() -> None:
    assert rouge_l("Σε 2020 μέρες όλα ήταν καλά", "σε 2020 ώρες χάσαμε") == 2 * 2 / (6 + 4)
    assert rouge_l("Größe: gut", "größe: schlecht") == 0.5
    assert rouge_l("一二三。", "一二三") == 1 and rouge_l("一二三", "一二四") == 0


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_the_table(a: list[str], b: list[str]) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert longest_common(a, b) == table[-1][-1]


@pytest.mark.parametrize("score", [rouge_l, chrf])
@pytest.mark.parametrize("text", ["", "!", "one two"])
def test_a_text_is_wholly_like_itself_and_unlike_nothing(score: object, text: str) -> None:
    assert callable(score)
    assert score(text, text) == 1
    assert score(text, "zzz zzz") == score("zzz zzz", text) == 0
