"""What the server writes down."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import Any, cast

import pytest

from offramp.serve.fake import FakeClient
from offramp.serve.fake_output import byte_tokenizer
from offramp.serve.logs import Log, busy_fields, log_while_busy
from offramp.serve.observe import NoMetrics
from offramp.serve.protocol import EngineClient, EngineStats, Job
from offramp.types.sampling import SamplingParams
from tests.serve.site import Site, chat, visit

PATH = "/v1/chat/completions"


def test_a_request_is_one_line_with_what_it_came_to() -> None:
    async def scene(here: Site) -> Any:
        answer = await here.post(PATH, chat(exit="lossless"), headers={"X-Request-Id": "mine-1"})
        return answer, here.log()

    answer, [line] = visit(scene)
    assert answer.headers["X-Request-Id"] == line["id"] == "mine-1"
    told = {name: line[name] for name in ("event", "method", "path", "status", "exit", "outcome")}
    assert told == {
        "event": "request", "method": "POST", "path": PATH, "status": 200, "exit": "lossless", "outcome": "stop"
    }  # fmt: skip
    assert line["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert line["output_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert abs(line["mean_depth"] - answer.json()["exit"]["mean_depth"]) < 1e-3
    assert 0 < line["ttft"] <= line["seconds"]


def test_a_request_without_an_id_gets_one_and_a_strange_one_is_replaced() -> None:
    async def scene(here: Site) -> list[str]:
        sent: list[dict[str, str]] = [{}, {}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 129}]
        return [(await here.http.get("/health", headers=headers)).headers["X-Request-Id"] for headers in sent]

    ids = visit(scene)
    assert len(set(ids)) == 4
    assert all(len(one) == 32 for one in ids)


def test_streams_and_refusals_are_logged_as_well() -> None:
    async def scene(here: Site) -> Any:
        await here.post(PATH, chat(stream=True))
        await here.post(PATH, chat(n="x"))
        return here.log()

    stream, refused = visit(scene)
    assert (stream["status"], stream["outcome"]) == (200, "stop")
    assert (refused["status"], "outcome" in refused) == (400, False)


def test_the_key_is_never_logged() -> None:
    async def scene(here: Site) -> str:
        for key in ("secret", "wrong"):
            await here.http.get("/v1/models?key=secret", headers={"Authorization": f"Bearer {key}"})
        return here.written.getvalue()

    written = visit(scene, api_key="secret")
    assert "/v1/models" in written
    assert "secret" not in written and "wrong" not in written


def test_metrics_hear_of_every_request_that_reached_the_engine() -> None:
    async def scene(here: Site) -> Any:
        for body in (chat(n=2, exit="lossless"), chat(max_tokens=1), chat(exit={"risk": 0.5}), chat(n="x")):
            await here.post(PATH, body)
        return here.metrics

    metrics = visit(scene)
    assert metrics.begun == len(metrics.ended) == 3
    both, short, refused = metrics.ended
    assert [outcome for outcome, *_ in metrics.ended] == ["stop", "length", "refused"]
    assert both[2] == sum(both[3].exit_histogram.values()) == len(both[3].layers_run)
    assert (short[2], refused[2], refused[3]) == (1, 0, None)


def test_text_is_a_line_whatever_is_in_it() -> None:
    written = io.StringIO()
    Log("text", written).write("request", path="/a\nb", error="not ok", seconds=0.12345, missing=None)
    [line] = written.getvalue().splitlines()
    assert line.partition(" ")[2] == """request path="/a\\nb" error="not ok" seconds=0.123"""


@pytest.mark.parametrize(
    ("exit", "word"),
    [
        ("lossless", "lossless"),
        ({"risk": 0.02}, "0.02"),
        ({"risk": "task:0.05"}, "task:0.05"),
        ({"criterion": "margin"}, "fill:margin:0.9"),
        ({"threshold": {"4": 0.5, "8": 1}, "min_layer": 3, "kv": "verify"}, "verify:max_prob:4@0.5,8@1:from3"),
    ],
)
def test_the_dial_is_one_word(exit: Any, word: str) -> None:
    async def scene(here: Site) -> list[dict[str, Any]]:
        await here.post(PATH, chat(exit=exit))
        return here.log()

    [line] = visit(scene)
    assert (line["status"], line["exit"]) == (200, word)
    written = io.StringIO()
    Log("text", written).write("request", exit=line["exit"])
    assert written.getvalue().split()[-1] == f"exit={word}"


@pytest.mark.parametrize("root_path", ["", "/llm"])
def test_what_is_fetched_again_and_again_is_logged_only_where_it_fails(root_path: str) -> None:
    async def scene(here: Site) -> list[tuple[str, int]]:
        paths = ["/", "/static/dom.js", "/metrics", "/health", "/load", "/version", "/static/none.js"]
        for path in paths:
            await here.http.get(root_path + path)
        await here.client.crash(restart=False)
        await here.http.get(f"{root_path}/health/ready")
        return [(line["path"], line["status"]) for line in here.log() if line["event"] == "request"]

    logged = visit(scene, root_path=root_path)
    assert logged == [(root_path + path, status) for path, status in (
        ("/version", 200), ("/static/none.js", 404), ("/health/ready", 503)
    )]  # fmt: skip


def test_the_end_of_an_engine_is_a_line_and_its_closing_is_none() -> None:
    async def scene(here: Site, crash: bool) -> list[dict[str, Any]]:
        await (here.client.crash(restart=False) if crash else here.client.close())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return here.log()

    [line] = visit(lambda here: scene(here, True))
    assert (line["event"], line["level"], line["reason"]) == ("engine_down", "error", "the fake engine is down")
    assert visit(lambda here: scene(here, False)) == []


def stats(**values: Any) -> EngineStats:
    empty: dict[str, Any] = dict.fromkeys(EngineStats.__slots__, 0)
    return EngineStats(**{**empty, "exit_tokens": {}, "seconds": {}, **values})


def test_a_busy_line_says_what_happened_between_two_looks() -> None:
    before = stats(output_tokens=10, exit_tokens={4: 10}, layers_run=100, layers_skipped=20)
    now = replace(
        before, running=3, waiting=2, output_tokens=30, kv_used_blocks=5, kv_total_blocks=10,
        exit_tokens={4: 15, 12: 15}, layers_run=160, layers_filled=20, layers_skipped=40,
    )  # fmt: skip
    assert busy_fields(before, now, 5.0) == {
        "running": 3,
        "waiting": 2,
        "prompt_tokens_per_s": 0.0,
        "output_tokens_per_s": 4.0,
        "kv_used": 0.5,
        "mean_depth": 10.0,
        "layers_skipped": 0.2,
    }


def test_no_line_says_that_nothing_runs() -> None:
    class Engine:
        def __init__(self) -> None:
            self.steps = 0

        async def stats(self) -> EngineStats:
            self.steps += 1
            return stats(steps=self.steps)

    async def scene() -> str:
        written = io.StringIO()
        writing = asyncio.create_task(
            log_while_busy(cast(EngineClient, Engine()), NoMetrics(), Log("json", written), seconds=0.001)
        )
        await asyncio.sleep(0.05)
        writing.cancel()
        return written.getvalue()

    assert asyncio.run(scene()) == ""


def test_a_line_is_written_while_it_is_busy_and_none_while_it_is_not() -> None:
    tokenizer = byte_tokenizer()

    async def scene(busy: bool) -> list[dict[str, Any]]:
        client, written = FakeClient(tokenizer, delay=0.001), io.StringIO()
        await client.start()
        await client.wait_ready()
        writing = asyncio.create_task(log_while_busy(client, NoMetrics(), Log("json", written), seconds=0.01))
        if busy:
            prompt = tuple(tokenizer.encode("some words to say again"))
            async for _ in client.generate(Job("one", prompt, SamplingParams(max_tokens=100, ignore_eos=True))):
                pass
        else:
            await asyncio.sleep(0.05)
        writing.cancel()
        return [json.loads(line) for line in written.getvalue().splitlines()]

    lines = asyncio.run(scene(True))
    assert lines and {line["event"] for line in lines} == {"busy"}
    assert asyncio.run(scene(False)) == []
