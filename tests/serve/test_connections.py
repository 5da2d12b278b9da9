"""Connections: clients that leave, do not read, or have to wait; engines that die; a server that is told to end."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from offramp.errors import EngineDown, OfframpError
from offramp.serve.server import listen
from tests.serve.live import Live, stage
from tests.serve.site import Site, chat, error_of, events, visit

PATH = "/v1/chat/completions"
LONG = chat("x" * 500, stream=True)
SLOW: dict[str, Any] = {"delay": 0.01}


@pytest.mark.parametrize(("root_path", "mounted"), [("", ""), ("/llm", ", mounted by a proxy at /llm")])
def test_a_person_is_told_when_it_is_ready(root_path: str, mounted: str) -> None:
    async def scene(here: Live) -> Any:
        while len(here.said) < 2:
            await asyncio.sleep(0.005)
        return here.url, here.said, (await here.http.get("/health")).status_code

    url, said, status = stage(scene, exit="lossless", root_path=root_path)
    assert said == [f"Serving fake at {url}{mounted}", "exits 4,8 · lossless · 8192 KV tokens"]
    assert status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_cancelled(stream: bool) -> None:
    async def scene(here: Live) -> Any:
        asking = asyncio.create_task(here.http.post(PATH, json={**LONG, "stream": stream}))
        await here.until(lambda stats: stats.running == 1 and stats.output_tokens > 3)
        asking.cancel()
        stats = await here.until(lambda stats: stats.running == 0)
        return stats, here.metrics.ended

    stats, ended = stage(scene, engine=SLOW)
    assert (stats.aborted, stats.kv_used_blocks) == (1, 0)
    assert [outcome for outcome, *_ in ended] == ["cancelled"]


def test_a_client_that_leaves_while_it_waits_is_cancelled() -> None:
    async def scene(here: Live) -> Any:
        first = asyncio.create_task(here.http.post(PATH, json=LONG))
        await here.until(lambda stats: stats.running == 1)
        second = asyncio.create_task(here.http.post(PATH, json=LONG))
        await here.until(lambda stats: stats.waiting == 1)
        second.cancel()
        stats = await here.until(lambda stats: stats.waiting == 0)
        first.cancel()
        return stats.running

    assert stage(scene, engine={**SLOW, "max_num_seqs": 1}) == 1


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug() -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"

    async def scene(here: Live) -> list[str]:
        port = int(here.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as brief:
            brief.sendall(head.encode() + b'{"messages": [')
        while len(here.written.getvalue().splitlines()) < 1:
            await asyncio.sleep(0.005)
        return here.written.getvalue().splitlines()

    [line] = stage(scene)
    assert "status=499" in line


def test_a_reader_that_does_not_read_is_dropped_and_holds_up_nobody() -> None:
    body = json.dumps(chat("x", stream=True, logprobs=True, top_logprobs=20, ignore_eos=True)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    async def scene(here: Live) -> Any:
        port = int(here.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(head.encode() + body)
            await here.until(lambda stats: stats.running == 1)
            answered = await here.http.post(PATH, json=chat("Hi"))
            stats = await here.until(lambda stats: stats.running == 0)
            return answered.status_code, stats

    status, stats = stage(scene, send_timeout=0.2, engine={"max_model_len": 20_000})
    assert status == 200
    assert stats.aborted == 1
    assert stats.output_tokens < 19_000


def test_silence_in_a_stream_is_filled_with_comments() -> None:
    async def scene(here: Live) -> httpx.Response:
        return await here.http.post(PATH, json=chat("Hi", stream=True, max_tokens=2))

    answer = stage(scene, keep_alive=0.04, engine={"delay": 0.3})
    assert ": keep-alive\n\n" in answer.text
    assert events(answer)[-1] == "[DONE]"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_full_queue_is_told_at_once() -> None:
    async def scene(here: Site) -> Any:
        tasks = [asyncio.create_task(here.post(PATH, LONG)) for _ in range(2)]
        while len(here.client.jobs) < 2:
            await asyncio.sleep(0)
        refused = [await here.post(PATH, chat(stream=stream)) for stream in (True, False)]
        for task in tasks:
            task.cancel()
        return refused, [outcome for outcome, *_ in here.metrics.ended[:2]]

    refused, outcomes = visit(scene, engine={"max_num_seqs": 1, "max_queue": 1, "delay": 60})
    for answer in refused:
        assert error_of(answer, 429)["code"] == "queue_full"
        assert int(answer.headers["Retry-After"]) > 0
    assert outcomes == ["queue_full"] * 2


def test_an_engine_that_dies_ends_requests_with_an_error_and_comes_back() -> None:
    async def scene(here: Live) -> Any:
        bodies: list[dict[str, Any]] = [LONG, {**LONG, "stream": False}]
        asking = [asyncio.create_task(here.http.post(PATH, json=body)) for body in bodies]
        await here.until(lambda stats: stats.running == 2 and stats.output_tokens > 5)
        await here.client.crash()
        stream, plain = [await one for one in asking]
        await here.client.wait_ready()
        return stream, plain, await here.http.post(PATH, json=chat())

    stream, plain, after = stage(scene, engine=SLOW)
    *_, last = events(stream)
    assert last["error"]["code"] == "engine_down"
    assert error_of(plain, 503)["message"].startswith("the engine's process ended")
    assert after.status_code == 200


def test_a_bug_is_answered_without_its_traceback_which_is_logged() -> None:
    async def scene(here: Site) -> Any:
        here.client.generate = None  # type: ignore[assignment,method-assign]
        return await here.http.post(PATH, json=chat()), here.log()

    answer, log = visit(scene)
    assert error_of(answer, 500)["message"] == "something went wrong in the server; its log says what"
    [bug] = [line for line in log if line["event"] == "bug"]
    assert "TypeError" in bug["traceback"]
    assert bug["id"] == answer.headers["X-Request-Id"]


def test_a_signal_lets_running_requests_finish() -> None:
    async def scene(here: Live) -> Any:
        asking = asyncio.create_task(here.http.post(PATH, json=chat("x" * 30, stream=True)))
        await here.until(lambda stats: stats.output_tokens > 3)
        here.end()
        answer = await asking
        await here.serving
        with pytest.raises(httpx.ConnectError):
            await here.http.get("/health")
        return answer

    assert events(stage(scene, engine=SLOW))[-1] == "[DONE]"


def test_a_request_that_runs_longer_than_that_is_told() -> None:
    async def scene(here: Live) -> Any:
        asking = asyncio.create_task(here.http.post(PATH, json=LONG))
        await here.until(lambda stats: stats.output_tokens > 3)
        here.end()
        return await asking

    assert events(stage(scene, drain_timeout=0.05, engine=SLOW))[-1]["error"]["type"] == "service_unavailable_error"


def test_an_address_that_is_taken_is_a_sentence() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OfframpError, match="cannot be listened on"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_server_whose_engine_is_lost_tells_its_clients_and_ends() -> None:
    said: list[str] = []

    async def scene(here: Live) -> None:
        here.told = True  # by nobody
        async with here.http.stream("POST", PATH, json=LONG) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await here.client.crash(restart=False)
            said.extend([line async for line in lines if line])
        await asyncio.wait([here.serving])

    with pytest.raises(EngineDown, match=r"^the fake engine is down$"):
        stage(scene, engine=SLOW)
    assert '"code":"engine_down"' in said[-1]
