"""The application: every route, and what surrounds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from offramp._version import __version__
from offramp.errors import OfframpError
from offramp.serve.http import about, absent, chat, completions, native, tokens
from offramp.serve.http.errors import on_http_error, on_invalid_body, on_offramp_error
from offramp.serve.http.front import Front
from offramp.serve.http.gate import Gate
from offramp.serve.logs import Log, log_end, log_while_busy
from offramp.serve.observe import Metrics, NoMetrics
from offramp.serve.pages import page_router
from offramp.serve.protocol import EngineClient
from offramp.serve.settings import ServerSettings
from offramp.tokenizer import Tokenizer

DESCRIPTION = """An inference server for early-exit language models.

`/v1` follows OpenAI's API; docs/server.md says, field by field, how far. Every generating request may have `exit`."""


def create_app(
    client: EngineClient,
    tokenizer: Tokenizer,
    settings: ServerSettings,
    metrics: Metrics | None = None,
    log: Log | None = None,
) -> FastAPI:
    """The application around an engine. Its lifespan starts the engine, and closes it once running requests ended."""
    log = log or Log()
    front = Front(client, tokenizer, settings, metrics or NoMetrics(), log)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        await client.start()
        watching = [
            asyncio.create_task(log_while_busy(client, front.metrics, log)),
            asyncio.create_task(log_end(client, log)),
        ]
        drain = 0.0
        try:
            yield
            drain = settings.drain_timeout
        finally:
            # Whoever cancels us instead of ending us is in a hurry.
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await client.close(drain)

    app = FastAPI(
        title="offramp",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        # Its pages would be fetched from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        exception_handlers={
            OfframpError: on_offramp_error,
            HTTPException: on_http_error,
            RequestValidationError: on_invalid_body,
        },
    )
    app.state.front = front
    for part in (chat, completions, native, tokens, about, absent):
        app.include_router(part.router)
    app.include_router(page_router())
    app.add_middleware(Gate, settings=settings, log=log)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    describe = app.openapi
    app.openapi = lambda: _document(describe(), settings)  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _document(document: dict[str, Any], settings: ServerSettings) -> dict[str, Any]:
    """The OpenAPI document without the framework's own kind of error, which is never sent, and a key nobody wants."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for operation in operations:
        operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    if settings.api_key is None:
        document["components"].pop("securitySchemes", None)
        for operation in operations:
            operation.pop("security", None)
            operation["responses"].pop("401", None)
    return document
