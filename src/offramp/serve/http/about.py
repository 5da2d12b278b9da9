"""What the server says of itself: models, health, version, facts and metrics."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from offramp._version import __version__
from offramp.errors import EngineDown
from offramp.serve.http.dial import Asked
from offramp.serve.http.errors import RESPONSES, ErrorDetail, answer_error, body_of
from offramp.serve.http.front import FrontOf, check_key
from offramp.serve.http.run import check_piece
from offramp.serve.protocol import State
from offramp.types.sampling import SamplingParams

router = APIRouter()

STARTED = int(time.time())

WORKS_SECONDS, LOOK_SECONDS = 20.0, 0.02
"""How long `/health_generate` waits for the engine, and how often it looks."""


class Model(BaseModel):
    """The served model, in OpenAI's form."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["offramp"] = "offramp"
    root: str | None = Field(description="What it was loaded from; null until then.")
    max_model_len: int | None = Field(description="Tokens that the context holds; null until the model is loaded.")


class Models(BaseModel):
    """The served model, under each of its names."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """The HTTP side answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The engine takes requests."""

    status: State


class NotReady(Ready):
    """It does not."""

    error: ErrorDetail


class Load(BaseModel):
    """How much is asked of the server, as vLLM tells it."""

    server_load: int = Field(description="Generating requests that were taken and have not ended.")


class Version(BaseModel):
    """Of offramp."""

    version: str


class Info(BaseModel):
    """What runs, and how."""

    version: str
    state: State
    engine: dict[str, Any] | None = Field(description="`EngineInfo`; null until the engine has been ready.")
    settings: dict[str, Any]
    chat: bool = Field(description="Whether the model has a chat template.")


@router.get("/v1/models", dependencies=[Depends(check_key)], responses={401: RESPONSES[401]}, tags=["OpenAI"])
async def models(front: FrontOf) -> Models:
    """The served model, under each of its names."""
    return Models(data=[_model(front, name) for name in front.settings.names])


@router.get(
    "/v1/models/{model:path}",
    dependencies=[Depends(check_key)],
    responses={status: RESPONSES[status] for status in (401, 404)},
    tags=["OpenAI"],
)
async def model(model: str, front: FrontOf) -> Model:
    """One model."""
    front.check_model(model)
    return _model(front, model)


def _model(front: FrontOf, name: str) -> Model:
    info = front.client.info
    return Model(
        id=name,
        created=STARTED,
        root=None if info is None else info.model,
        max_model_len=None if info is None else info.max_model_len,
    )


@router.get("/health", tags=["health"])
async def health() -> Health:
    """Whether the HTTP side is alive."""
    return Health()


@router.get(
    "/health/ready",
    response_model=Ready,
    responses={503: {"model": NotReady, "description": "Not ready; `status` says how far it is"}},
    tags=["health"],
)
async def ready(front: FrontOf) -> Response:
    """Whether the engine takes requests."""
    try:
        front.ready()
    except EngineDown as error:
        failure = answer_error(error)
        body = {"status": front.client.state, **body_of(error)}
        return JSONResponse(body, failure.status_code, {"Retry-After": failure.headers["Retry-After"]})
    return JSONResponse({"status": "ready"})


@router.get("/health_generate", responses={status: RESPONSES[status] for status in (429, 500, 503)}, tags=["health"])
async def health_generate(front: FrontOf) -> Health:
    """Whether the engine computes: it makes a token, or goes on with what it has, within 20 s."""
    front.ready()
    try:
        await asyncio.wait_for(_works(front), WORKS_SECONDS)
    except asyncio.TimeoutError:
        hint = "see what the engine wrote to standard error"
        raise EngineDown(f"the engine took no step in {WORKS_SECONDS:g} s", hint=hint) from None
    return Health()


async def _works(front: FrontOf) -> None:
    """Return once the engine has done something. Where others run, or the queue is full, their next step will do.

    Raises:
        OfframpError: what it made is not well.
    """
    before = await front.client.stats()
    while (now := await front.client.stats()).running:
        if now.steps > before.steps:
            return
        await asyncio.sleep(LOOK_SECONDS)
    job = front.job(front.tokenizer.encode("Hello"), SamplingParams(max_tokens=1), Asked("off", "off"))
    async with aclosing(front.client.generate(job)) as pieces:
        async for piece in pieces:
            check_piece(piece)


@router.get("/load", tags=["health"])
async def load(front: FrontOf) -> Load:
    """How much is asked of the server now."""
    return Load(server_load=front.metrics.in_flight)


@router.get("/version", tags=["health"])
async def version() -> Version:
    """The server's version."""
    return Version(version=__version__)


@router.get("/info", tags=["health"])
async def info(front: FrontOf) -> Info:
    """The engine's facts and the settings in force, without the key."""
    facts = front.client.info
    return Info(
        version=__version__,
        state=front.client.state,
        engine=None if facts is None else asdict(facts),
        settings=front.settings.shown(),
        chat=front.tokenizer.has_chat_template,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["health"],
)
async def metrics(front: FrontOf) -> Response:
    """Counters for Prometheus; docs/metrics.md lists them."""
    page = await front.metrics.render(front.client)
    return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")
