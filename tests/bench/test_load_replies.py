"""Answers as they were recorded: whatever the cuts between reads, what is read is the same, at the right times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.bench.load.client import Recorded, Target
from offramp.bench.load.outcomes import read_outcome
from offramp.bench.load.replies import Unreadable, read_reply
from offramp.errors import InvalidParameter

EVENTS = [
    b'data: {"choices":[{"text":"a"}]}\n\n',
    b": keep-alive\n\n",
    'data: {"choices":[{"text":"\u00e9"}]}\n\n'.encode(),
    b'data: {"choices":[{"text":"","finish_reason":"length"}]}\r\n\r\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def chunked(events: list[bytes]) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def recorded(whole: bytes, cuts: set[int]) -> Recorded:
    """A read each second, ending at each of `cuts`."""
    ends = sorted({cut for cut in cuts if cut < len(whole)} | {len(whole)})
    parts = [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return Recorded(0.0, [(float(second + 1), part) for second, part in enumerate(parts) if part])


@given(st.sets(st.integers(1, 600), max_size=30), st.booleans())
def test_cuts_between_reads_change_nothing(cuts: set[int], in_chunks: bool) -> None:
    whole = chunked(EVENTS) if in_chunks else HEAD + b"\r\n" + b"".join(EVENTS)
    outcome = read_outcome(recorded(whole, cuts))
    assert outcome.error is None
    assert (outcome.text, outcome.prompt_tokens, outcome.output_tokens) == ("a\u00e9", 5, 2)
    assert len(outcome.itl) == 1
    assert 0 < outcome.ttft <= outcome.ttft + outcome.itl[0] <= outcome.latency


def test_an_event_comes_when_its_last_byte_does() -> None:
    whole = chunked(EVENTS)
    first, second = (whole.index(event) + len(event) for event in (EVENTS[0], EVENTS[2]))
    outcome = read_outcome(recorded(whole, {first - 1, first, second - 3}))
    # Reads end before the last byte of the first event, behind it, and within the next one that brings text.
    assert (outcome.ttft, outcome.itl) == (2.0, [2.0])


@pytest.mark.parametrize("missing", [1, 5, 40, 120])
def test_an_answer_that_breaks_off_is_no_success(missing: int) -> None:
    whole = chunked(EVENTS[:3])[:-missing]
    assert read_outcome(recorded(whole, set())).error is not None


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests"])
def test_a_refusal_is_told_with_its_reason(status: str) -> None:
    body = b'{"error":{"message":"there is no model `x`"}}'
    whole = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    assert read_outcome(recorded(whole, {30})).error == f"{status[:3]}: there is no model `x`"


@pytest.mark.parametrize("whole", [b"", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_what_is_no_answer(whole: bytes) -> None:
    with pytest.raises(Unreadable):
        read_reply(recorded(whole, set()) if whole else Recorded(0.0, [], "connection refused"))


def test_an_error_in_a_stream_is_the_outcome() -> None:
    broken = [EVENTS[0], b'data: {"error":{"message":"the engine is gone"}}\n\n']
    assert read_outcome(recorded(chunked(broken), set())).error == "the engine is gone"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "http://a:x", "http://a/?b=c"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidParameter):
        Target.from_url(url)


def test_a_request_is_whole() -> None:
    request = Target.from_url("http://[::1]:80/llm/", {"X-A": "b"}).request("/v1/models", {"a": "\u00e9"})
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /llm/v1/models HTTP/1.1"
    assert {b"Host: [::1]:80", b"X-A: b", b"Content-Length: %d" % len(body)} <= set(head.splitlines())
