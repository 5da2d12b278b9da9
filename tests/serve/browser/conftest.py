"""A server, and a browser that looks at it. Both are real; only the engine is a fake."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
from collections.abc import Coroutine, Iterator
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from offramp.serve.app import create_app
from offramp.serve.fake import FakeClient
from offramp.serve.fake_output import CHATML, byte_tokenizer
from offramp.serve.logs import Log
from offramp.serve.metrics import Metrics
from offramp.serve.settings import ServerSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

Sent = list[dict[str, Any]]
"""The bodies of requests."""

SLOW = pytest.mark.parametrize("site", [{"delay": 0.2}], indirect=True)
"""Outputs that can be watched while they come."""

PATIENCE = 60
"""Seconds until a test gives up on what it waits for: the machine may be busy."""


class Site:
    """A server in a thread, without a model.

    Args:
        delay: seconds between tokens.
        api_key: what requests must show.
        room: how many outputs run at once, and how many requests may wait.
        template: the model's chat template.
    """

    def __init__(
        self,
        delay: float = 0.005,
        api_key: str | None = None,
        room: tuple[int, int] = (8, 64),
        template: str | None = CHATML,
    ) -> None:
        tokenizer = byte_tokenizer(template)
        self.client = FakeClient(tokenizer, delay=delay, max_num_seqs=room[0], max_queue=room[1])
        settings = ServerSettings("fake", api_key=api_key, drain_timeout=0.0)
        app = create_app(self.client, tokenizer, settings, Metrics("fake"), Log(stream=StringIO()))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A server; `indirect` parameters are those of `Site`."""
    site = Site(**getattr(request, "param", {}))
    yield site
    site.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("OFFRAMP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("no Chromium is installed; install one, or name it with OFFRAMP_CHROMIUM=/path/to/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """An empty page. What goes wrong in it, or against its policy, fails the test."""
    context = browser.new_context(base_url=site.url, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if is_fault(said.type, said.text) else None)
    yield page
    context.close()
    assert faults == []


def is_fault(kind: str, text: str) -> bool:
    """Answers of the server that are errors are reported, too; tests ask for those."""
    return kind == "error" and "Failed to load resource" not in text


@pytest.fixture
def sent(page: Page) -> Sent:
    """The bodies of the page's requests so far."""
    bodies: Sent = []

    def note(request: Request) -> None:
        if request.method == "POST":
            bodies.append(json.loads(request.post_data or "null"))

    page.on("request", note)
    return bodies


@pytest.fixture
def playground(page: Page) -> Page:
    """The playground of a server whose engine is ready."""
    page.goto("/")
    page.wait_for_selector("#generate:enabled")
    return page
