"""Outputs that come piece by piece."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from offramp import LLM, ExitParams, OfframpError
from offramp.llm.session import Stream
from tests.llm.tiny.conftest import EARLY, FREE


@pytest.mark.parametrize("exit", ["off", "lossless", EARLY])
def test_a_stream_adds_up_to_the_output(llm: LLM, exit: str | ExitParams) -> None:
    chunks = list(llm.stream("abc", FREE, exit))
    output = llm.generate("abc", FREE, exit)
    assert "".join(c.text for c in chunks) == output.text
    assert tuple(t for c in chunks for t in c.token_ids) == output.token_ids
    assert tuple(e for c in chunks for e in c.exit_layers) == output.exit_layers
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"]
    assert chunks[-1].output == output and all(c.output is None for c in chunks[:-1])


@pytest.mark.parametrize("exit", ["off", "lossless", EARLY])
def test_a_stream_ends_where_its_stop_check_says_so(llm: LLM, exit: str | ExitParams) -> None:
    whole, told = llm.generate("abc", FREE, exit), []

    def third(token: int) -> bool:
        told.append(token)
        return len(told) == 3

    output = list(llm.stream("abc", FREE, exit, third))[-1].output
    assert output is not None and output.finish_reason == "stop"
    assert output.token_ids == whole.token_ids[:3] == tuple(told)


def test_streams_may_be_read_in_turns(llm: LLM) -> None:
    one, two = llm.stream("abc", FREE), llm.stream("xyz", FREE, EARLY)
    texts = ["", ""]
    for pair in zip_longest(one, two):
        texts = [text + (chunk.text if chunk else "") for text, chunk in zip(texts, pair, strict=True)]
    assert texts == [llm.generate("abc", FREE).text, llm.generate("xyz", FREE, EARLY).text]


def test_a_stream_left_early_leaves_nothing_behind(llm: LLM) -> None:
    stream = llm.stream("abc", FREE)
    next(stream)
    stream.close()
    assert not llm.engine.has_work and not llm.engine.sequences
    llm.engine.check_integrity()


def test_a_stream_that_ends_in_the_middle_of_a_step_is_dropped_behind_it(llm: LLM) -> None:
    """As where the collector finds it then, or a stop check closes its own."""
    lost, closed = llm.stream("abc", FREE), list[Stream]()

    def collect(token: int) -> bool:
        lost.close()
        closed[0].close()
        return False

    closed.append(llm.stream("xyz", FREE, stop_check=collect))
    other = llm.stream("abc", FREE)
    text = "".join(chunk.text for chunk in other)
    assert text == llm.generate("abc", FREE).text
    assert not llm.engine.has_work and not llm.engine.sequences and list(lost) == []
    llm.engine.check_integrity()


def test_a_stream_that_is_never_read_leaves_nothing_behind(llm: LLM) -> None:
    stream = llm.stream("abc", FREE)
    stream.close()
    assert not llm.engine.has_work and not llm.engine.sequences
    llm.stream("abc", FREE)
    assert not llm.engine.has_work and not llm.engine.sequences


def test_a_closed_llm_ends_its_streams_and_refuses_more(folder: Path, options: dict[str, Any]) -> None:
    llm = LLM(str(folder), **options)
    stream = llm.stream("abc", FREE)
    next(stream)
    llm.close()
    assert list(stream) == []
    with pytest.raises(OfframpError, match=r"^this LLM is closed\nhint: make a new one$"):
        llm.generate("abc")
