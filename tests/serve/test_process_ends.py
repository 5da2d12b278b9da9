"""How an engine's process begins and ends: crashes, shutting down, failing to load, and a server that is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp import OfframpError
from offramp.errors import EngineDown, InvalidParameter
from offramp.serve.process import ProcessClient
from offramp.serve.protocol import Piece
from tests.serve.engines import collect, endless, engine_processes, job

PROMPT = (65, 66, 67)


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before anybody would give up waiting."""
    for _ in range(3000):
        if true():
            return True
        time.sleep(0.02)
    return False


async def begun(client: ProcessClient) -> AsyncGenerator[Piece, None]:
    """A job that runs, and goes on."""
    pieces = client.generate(endless())
    await anext(pieces)
    return pieces


async def ready(options: dict[str, Any]) -> ProcessClient:
    """An engine that takes jobs."""
    client = ProcessClient(options)
    await client.start()
    await client.wait_ready()
    return client


def state_of(client: ProcessClient) -> str:
    """What mypy does not follow through an `await`."""
    return client.state


def test_a_killed_engine_fails_what_ran_and_is_started_again(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = ProcessClient(options)
        with pytest.raises(EngineDown, match=r"^the engine was not started"):
            await client.stats()
        await client.start()
        assert (client.state, client.info) == ("starting", None)
        with pytest.raises(EngineDown, match=r"^the engine is being started\nhint: "):
            await collect(client.generate(job(PROMPT)))
        info = await client.wait_ready()
        expected = await collect(client.generate(job(PROMPT, max_tokens=9, ignore_eos=True)))
        jobs = [await begun(client) for _ in range(3)]
        (pid,) = engine_processes()
        os.kill(pid, signal.SIGKILL)
        for pieces in jobs:
            with pytest.raises(
                EngineDown, match=r"^the engine's process ended and is being restarted\nhint: try again"
            ):
                await collect(pieces)
        assert state_of(client) == "starting" and client.info == info
        assert await client.wait_ready() == info
        assert await collect(client.generate(job(PROMPT, max_tokens=9, ignore_eos=True))) == expected
        stats = await client.stats()
        assert (stats.restarts, stats.running, stats.kv_used_blocks) == (1, 0, 0)
        assert engine_processes() not in ([], [pid])
        await client.close()
        assert engine_processes() == []

    asyncio.run(story())


def test_draining_finishes_what_runs_and_takes_nothing_new(
    options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        client = await ready(options)
        running = client.generate(job(PROMPT, max_tokens=500, ignore_eos=True))
        first = await anext(running)
        closing = asyncio.create_task(client.close(drain_seconds=60))
        await asyncio.sleep(0)
        with pytest.raises(EngineDown, match=r"^the engine is being shut down\nhint: "):
            await collect(client.generate(job(PROMPT)))
        pieces = [first, *await collect(running)]
        assert sum(len(piece.token_ids) for piece in pieces) == 500 and pieces[-1].finish_reason == "length"
        await closing
        assert state_of(client) == "down" and engine_processes() == []

    asyncio.run(story())
    assert capfd.readouterr() == ("", "")


def test_draining_lets_a_request_that_has_begun_go_on_with_its_next_jobs(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = await ready(options)
        running = client.generate(job(PROMPT, max_tokens=50, ignore_eos=True))
        await anext(running)
        closing = asyncio.create_task(client.close(drain_seconds=60))
        await asyncio.sleep(0)
        await collect(running)
        for _ in range(2):
            pieces = await collect(client.generate(replace(job(PROMPT, max_tokens=5, ignore_eos=True), goes_on=True)))
            assert sum(len(piece.token_ids) for piece in pieces) == 5
        await closing
        with pytest.raises(EngineDown, match=r"^the engine was shut down\nhint: "):
            await collect(client.generate(replace(job(PROMPT), goes_on=True)))
        assert engine_processes() == []

    asyncio.run(story())


def test_what_has_not_finished_in_time_is_cut_off(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = await ready(options)
        running = await begun(client)
        await client.close(drain_seconds=0.0)
        with pytest.raises(EngineDown, match=r"^the engine was shut down\nhint: "):
            await collect(running)
        assert state_of(client) == "down" and engine_processes() == []
        await client.close()
        with pytest.raises(EngineDown, match=r"^the engine was shut down\nhint: "):
            await client.wait_ready()

    asyncio.run(story())


def test_a_model_that_cannot_be_loaded_says_why(options: dict[str, Any]) -> None:
    async def story() -> OfframpError:
        client = ProcessClient({**options, "threads": 0})
        await client.start()
        with pytest.raises(InvalidParameter) as error:
            await client.wait_ready()
        with pytest.raises(InvalidParameter):
            await collect(client.generate(job(PROMPT)))
        assert state_of(client) == "down" and engine_processes() == []
        await client.close()
        return error.value

    error = asyncio.run(story())
    assert isinstance(error, InvalidParameter) and error.param == "threads" and error.hint is None
    assert error.message == "`threads` must be a whole number of at least 1 and at most 1024, not 0"


def test_an_engine_that_never_gets_ready_is_given_up(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = ProcessClient({**options, "no_such_option": 1})
        await client.start()
        with pytest.raises(EngineDown) as error:
            await client.wait_ready()
        assert error.value.message == "the engine's process ended before it was ready, 3 times (code 1)"
        assert await client.wait_lost() is error.value
        assert state_of(client) == "down" and engine_processes() == []
        await client.close()

    asyncio.run(story())


def test_closing_while_it_loads_leaves_no_process(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = ProcessClient(options)
        await client.start()
        while not engine_processes():
            await asyncio.sleep(0.01)
        await client.close(drain_seconds=60)
        assert state_of(client) == "down" and engine_processes() == []

    asyncio.run(story())


def test_signals_are_left_to_the_server(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = await ready(options)
        (pid,) = engine_processes()
        assert os.getsid(pid) != os.getsid(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert (await collect(client.generate(job(PROMPT, max_tokens=3))))[-1].finish_reason is not None
        assert engine_processes() == [pid] and (await client.stats()).restarts == 0
        await client.close()

    asyncio.run(story())


SERVER = """
import asyncio, sys
from offramp.serve.process import ProcessClient
from offramp.serve.protocol import Piece
from tests.serve.engines import endless, engine_processes

async def serve():
    client = ProcessClient(eval(sys.argv[1]))
    await client.start()
    if sys.argv[2] == "busy":
        await client.wait_ready()
        pieces = client.generate(endless())
        await anext(pieces)
    while not engine_processes():
        await asyncio.sleep(0.01)
    print(*engine_processes(), flush=True)
    await asyncio.sleep(1000)

asyncio.run(serve())
"""


@pytest.mark.parametrize("state", ["busy", "loading"])
def test_an_engine_does_not_outlive_its_server(options: dict[str, Any], state: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SERVER, repr(options), state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as server:
        assert server.stdout is not None
        engine = Path("/proc", server.stdout.readline().strip())
        assert engine.name.isdigit() and engine.exists()
        server.kill()
    assert eventually(lambda: not engine.exists() or ") Z " in (engine / "stat").read_text())


def test_an_engine_killed_while_draining_is_not_replaced(options: dict[str, Any]) -> None:
    async def story() -> None:
        client = await ready(options)
        running = await begun(client)
        closing = asyncio.create_task(client.close(drain_seconds=60))
        await asyncio.sleep(0)
        assert (await client.stats()).running == 1
        os.kill(engine_processes()[0], signal.SIGKILL)
        with pytest.raises(EngineDown, match=r"^the engine is being shut down\nhint: "):
            await collect(running)
        await closing
        with pytest.raises(EngineDown):
            await client.stats()
        assert engine_processes() == []

    asyncio.run(story())
