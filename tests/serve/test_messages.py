"""The pipe: messages arrive whole, in order, and nobody waits for a reader."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from offramp.errors import CacheTooSmall, InvalidParameter
from offramp.serve.messages import LENGTH, Ask, Cancel, Link, News, Refused, Submit, ToChild, pack, unpack
from offramp.serve.protocol import Piece
from tests.serve.engines import job


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Link]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Link(theirs)


def read(end: socket.socket) -> object:
    (size,) = LENGTH.unpack(end.recv(LENGTH.size, socket.MSG_WAITALL))
    return unpack(end.recv(size, socket.MSG_WAITALL))


def test_messages_arrive_whole_however_they_were_cut(ends: tuple[socket.socket, Link]) -> None:
    server, link = ends
    sent: list[ToChild] = [Submit(1, job((1, 2), max_tokens=3)), Cancel(1), Ask(2)]
    stream = b"".join(pack(message) for message in sent)
    arrived = link.receive(timeout=0)
    for start in range(0, len(stream), 7):
        server.sendall(stream[start : start + 7])
        arrived += link.receive(timeout=0)
    assert arrived == sent


def test_several_messages_may_come_at_once(ends: tuple[socket.socket, Link]) -> None:
    server, link = ends
    server.sendall(pack(Cancel(1)) + pack(Cancel(2)))
    assert link.receive(timeout=None) == [Cancel(1), Cancel(2)]


def test_sending_does_not_wait_for_a_reader(ends: tuple[socket.socket, Link]) -> None:
    server, link = ends
    sent = [News(((i, Piece(0, "x" * 1_000_000)),)) for i in range(8)]
    for message in sent:
        link.send(message)
    assert link.receive(timeout=0) == []
    threading.Thread(target=link.finish).start()
    assert [read(server) for _ in sent] == sent
    assert server.recv(1) == b""


def test_what_is_on_its_way_goes_out_while_the_child_waits(ends: tuple[socket.socket, Link]) -> None:
    server, link = ends
    sent = News(((3, Piece(0, "x" * 4_000_000)),))
    link.send(sent)
    waiting = threading.Thread(target=link.receive, args=(None,))
    waiting.start()
    assert read(server) == sent
    server.sendall(pack(Cancel(1)))
    waiting.join()


def test_a_closed_pipe_is_the_end(ends: tuple[socket.socket, Link]) -> None:
    server, link = ends
    server.close()
    with pytest.raises(EOFError):
        link.receive(timeout=None)


@pytest.mark.parametrize("error", [InvalidParameter("no", param="n", hint="yes"), CacheTooSmall("no", hint="more")])
def test_an_error_arrives_as_it_was(error: InvalidParameter | CacheTooSmall) -> None:
    arrived = unpack(pack(Refused(1, error))[LENGTH.size :]).error
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
