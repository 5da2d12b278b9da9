"""The application around a fake engine, spoken to without a network."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from offramp.serve.app import create_app
from offramp.serve.fake import FakeClient
from offramp.serve.fake_output import CHATML, byte_tokenizer
from offramp.serve.logs import Log
from offramp.serve.observe import Ended, NoMetrics
from offramp.serve.settings import ServerSettings
from offramp.types.output import ExitReport

T = TypeVar("T")

MARKED = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}{# <tool_call> #}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template that takes tools."""


class Counting(NoMetrics):
    """Metrics that keep what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.ended: list[tuple[str, int, int, ExitReport | None]] = []

    def started(self) -> None:
        super().started()
        self.begun += 1

    def finished(self, ended: Ended) -> None:
        super().finished(ended)
        self.ended.append((ended.outcome, ended.prompt_tokens, ended.output_tokens, ended.report))


@dataclass
class Site:
    """An application that runs."""

    client: FakeClient
    app: FastAPI
    http: httpx.AsyncClient
    metrics: Counting
    written: io.StringIO = field(default_factory=io.StringIO)

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    def log(self) -> list[dict[str, Any]]:
        """What was logged, as JSON."""
        return [json.loads(line) for line in self.written.getvalue().splitlines()]


@asynccontextmanager
async def site(
    *, ready: bool = True, template: str | None = CHATML, engine: dict[str, Any] | None = None, **settings: Any
) -> AsyncGenerator[Site, None]:
    tokenizer = byte_tokenizer(template)
    client, metrics, written = FakeClient(tokenizer, **(engine or {})), Counting(), io.StringIO()
    kept = ServerSettings("fake", **{"drain_timeout": 0.0, **settings})
    app = create_app(client, tokenizer, kept, metrics, Log("json", written))
    transport = httpx.ASGITransport(app, root_path=kept.root_path)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://offramp") as http,
    ):
        if ready:
            await client.wait_ready()
        yield Site(client, app, http, metrics, written)


def visit(scene: Callable[[Site], Awaitable[T]], **options: Any) -> T:
    """What a scene comes to at a site of its own."""

    async def play() -> T:
        async with site(**options) as here:
            return await asyncio.wait_for(scene(here), 30)

    return asyncio.run(play())


def ask(path: str, body: Any = None, *, method: str = "", headers: Any = None, **options: Any) -> httpx.Response:
    """The answer to one request: a POST with a JSON body, or a GET without."""

    async def scene(here: Site) -> httpx.Response:
        way = method or ("GET" if body is None else "POST")
        return await here.http.request(way, path, json=body, headers=headers)

    return visit(scene, **options)


def chat(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **more}


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream: JSON, and `[DONE]` as text."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error that an answer tells, which must have the four fields and nothing else."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
