"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}, from one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from offramp.errors import (
    CacheTooSmall,
    EngineDown,
    InvalidParameter,
    OfframpError,
    PackError,
    QueueFull,
    TokenizerError,
    TraceError,
    Unsupported,
)

INVALID = "invalid_request_error"


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="One sentence: what was wrong and what is allowed.")
    type: str
    param: str | None = Field(description="The field of the request that is at fault.")
    code: str | None = Field(description="For programs, such as `context_length_exceeded`.")


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


class ContextTooLong(InvalidParameter):
    """A prompt that does not fit the context with what is to be generated."""


class Refusal(OfframpError):
    """A request that is refused for a reason of HTTP's or of the API's, with its status."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.param, self.code = status, param, code


class OutputFailed(OfframpError):
    """An output that broke off: the model gave no finite number, or every token was banned."""


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of error is answered. `retry` is for `Retry-After`, in seconds."""

    status: int
    type: str
    param: str | None = None
    code: str | None = None
    retry: int | None = None


FORMS: Mapping[type[OfframpError], Form] = {
    ContextTooLong: Form(400, INVALID, None, "context_length_exceeded"),
    InvalidParameter: Form(400, INVALID),
    Unsupported: Form(400, INVALID, None, "unsupported"),
    CacheTooSmall: Form(400, INVALID, None, "context_length_exceeded"),
    PackError: Form(400, INVALID, "exit"),
    TraceError: Form(400, INVALID, "exit"),
    TokenizerError: Form(400, INVALID, "messages"),
    QueueFull: Form(429, "rate_limit_error", None, "queue_full", retry=1),
    EngineDown: Form(503, "service_unavailable_error", None, "engine_down", retry=5),
    OutputFailed: Form(500, "server_error", None, "output_failed"),
    OfframpError: Form(500, "server_error"),
}
"""The most special kind first."""

TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable_error"}
"""Types of refusals by status; others are `invalid_request_error`, and `server_error` from 500 on."""


def error_body(message: str, type: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The four fields, nested."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def form_of(error: OfframpError) -> Form:
    """How an error is answered."""
    if isinstance(error, Refusal):
        kind = TYPES.get(error.status, INVALID if error.status < 500 else "server_error")
        return Form(error.status, kind, error.param, error.code)
    form = next(form for kind, form in FORMS.items() if isinstance(error, kind))
    param = getattr(error, "param", None) or form.param
    return Form(form.status, form.type, param, form.code, form.retry)


def body_of(error: OfframpError) -> dict[str, Any]:
    """The body for an error, also as an event of a stream."""
    form = form_of(error)
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return error_body(message, form.type, form.param, form.code)


def answer_error(error: OfframpError) -> Response:
    """The response for an error."""
    form = form_of(error)
    headers = {} if form.retry is None else {"Retry-After": str(form.retry)}
    if form.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error), form.status, headers)


def answer_bug() -> Response:
    """The response for a bug of ours; its traceback is in the log."""
    return JSONResponse(error_body("something went wrong in the server; its log says what", "server_error"), 500)


async def on_offramp_error(request: Request, error: Exception) -> Response:
    """For errors of offramp's."""
    assert isinstance(error, OfframpError)
    return answer_error(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """For what the framework refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    path, status = request.url.path, error.status_code
    message = {404: f"there is no `{path}`", 405: f"`{path}` does not take {request.method}"}.get(status)
    if message is None:
        message = str(error.detail) or HTTPStatus(status).phrase
    hint = "`/openapi.json` lists what there is" if status in (404, 405) else None
    response = answer_error(Refusal(status, message, hint=hint))
    response.headers.update(error.headers or {})
    return response


async def on_invalid_body(request: Request, error: Exception) -> Response:
    """For bodies, and parameters, of the wrong form."""
    assert isinstance(error, RequestValidationError)
    return answer_error(_first_fault(error.errors(), error.body))


def _first_fault(faults: Sequence[Mapping[str, Any]], body: Any) -> OfframpError:
    """The first fault, with the path to the field. Faults of unions name their members: those are left out, and a
    member that the value is not even of the type of says less than another."""
    field = faults[0]["loc"][:2]
    of_the_type = (one for one in faults if one["loc"][:2] == field and not one["type"].endswith("_type"))
    fault = next(of_the_type, faults[0])
    path, here = "", body
    for number, part in enumerate(fault["loc"][1:], 2):
        there = isinstance(here, Mapping) and part in here
        if there or (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            here = here[part]
        elif fault["type"] != "missing" or number < len(fault["loc"]):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    name = fault.get("ctx", {}).get("name")
    if name is not None:
        path = f"{path}.{name}" if path else name
        return InvalidParameter(fault["msg"], param=path)
    if not path and not isinstance(body, Mapping):
        what = "nothing was sent" if body is None else f"not {type(body).__name__}"
        return InvalidParameter(f"the body must be a JSON object, {what}")
    if fault["type"] == "missing":
        return InvalidParameter(f"`{path}` is missing", param=path)
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("too_long", "too_short"):
        return InvalidParameter(f"`{path}` {said.removeprefix('List ').replace(' after validation', '')}", param=path)
    value = repr(fault.get("input"))
    value = value if len(value) <= 60 else value[:57] + "..."
    return InvalidParameter(f"`{path}`: {said[0].lower() + said[1:]}, not {value}", param=path or None)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is wrong; `param` says where",
        401: "The API key is missing or wrong",
        404: "There is no such model",
        413: "The body is too large",
        429: "The queue is full; `Retry-After` says when to try again",
        500: "A bug of the server's, or an output that broke off",
        503: "The engine is starting, draining or down; `Retry-After` says when to try again",
    }.items()
}
"""Error responses of generating routes, for the OpenAPI document."""
