"""A stop string cuts the text off wherever the pieces of the text happen to end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.tokenizer import StopStrings

TEXT = st.text(alphabet="ab\n", max_size=12)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3)


def run(stop: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopStrings(stop)
    emitted = ""
    for piece in pieces:
        text, matched = matcher.push(piece)
        emitted += text
        if matched is not None:
            return emitted, matched
    return emitted + matcher.flush(), None


def cut_at_first_end(stop: list[str], text: str) -> tuple[str, str | None]:
    """Read a character at a time; stop when the text so far ends in a stop string."""
    for end in range(len(text) + 1):
        endings = [string for string in stop if text[:end].endswith(string)]
        if endings:
            longest = max(endings, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(stop=STOPS, pieces=st.lists(TEXT, max_size=6))
def test_the_result_does_not_depend_on_the_pieces(stop: list[str], pieces: list[str]) -> None:
    assert run(stop, pieces) == cut_at_first_end(stop, "".join(pieces))


@given(stop=STOPS, pieces=st.lists(TEXT, max_size=6))
def test_only_the_start_of_a_stop_string_is_held_back(stop: list[str], pieces: list[str]) -> None:
    matcher = StopStrings(stop)
    seen = emitted = ""
    for piece in pieces:
        text, matched = matcher.push(piece)
        if matched is not None:
            break
        seen, emitted = seen + piece, emitted + text
        held = seen.removeprefix(emitted)
        assert emitted + held == seen
        assert held == "" or any(string.startswith(held) for string in stop)


@pytest.mark.parametrize(
    ("stop", "pieces", "expected"),
    [
        (["</s>"], ["hi <", "/s", "> there"], ("hi ", "</s>")),
        (["</s>"], ["hi <", "/b>"], ("hi </b>", None)),
        (["\n\n"], ["one\n", "two\n", "\nthree"], ("one\ntwo", "\n\n")),
        (["ab", "b"], ["xab"], ("x", "ab")),
        (["abc", "b"], ["xabc"], ("xa", "b")),
        ([], ["all"], ("all", None)),
    ],
)
def test_examples(stop: list[str], pieces: list[str], expected: tuple[str, str | None]) -> None:
    assert run(stop, pieces) == expected


def test_after_a_match_nothing_is_emitted() -> None:
    matcher = StopStrings(["x"])
    matcher.push("ax")
    assert matcher.push("b") == ("", "x")
    assert matcher.flush() == ""
