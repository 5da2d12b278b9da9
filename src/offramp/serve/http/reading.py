"""Reading bodies: JSON as the standard has it, not too deep, and numbers that exist."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from offramp.errors import InvalidParameter

MAX_DEPTH = 100
"""How deep objects and lists may lie in each other."""

MAX_WHOLE = 2**53
"""Beyond it not every whole number can be written with a point."""


class JsonRequest(Request):
    """A request whose JSON has been read already."""

    document: Any = None

    async def json(self) -> Any:
        """The body."""
        return self.document


class JsonRoute(APIRoute):
    """A route whose bodies are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with a reader before it: the framework keeps no reason of an unreadable body."""
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            read = JsonRequest(request.scope, request.receive)
            if body := await read.body():
                _check_type(request.headers.get("content-type", ""))
                read.document = read_json(body)
            return await handler(read)

        return strictly


def _check_type(sent: str) -> None:
    """Only JSON is taken: a web page elsewhere can send anything else without being allowed to.

    Raises:
        InvalidParameter: it is something else.
    """
    kind = sent.partition(";")[0].strip().lower()
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        raise InvalidParameter(
            f"the body is sent as `{kind or 'nothing in particular'}`, only JSON is taken",
            hint="send `Content-Type: application/json`",
        )


def read_json(text: bytes) -> Any:
    """A JSON document.

    Raises:
        InvalidParameter: it is not JSON, too deep, or has text or numbers that are none.
    """
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_number)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise InvalidParameter("the body holds half of a surrogate pair") from None
    except UnicodeDecodeError:
        raise InvalidParameter("the body is not UTF-8") from None
    except ValueError as error:
        raise InvalidParameter(f"the body is not JSON: {error}") from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    return value


def _too_deep() -> InvalidParameter:
    return InvalidParameter(f"the body is nested too deeply, at most {MAX_DEPTH} levels are allowed")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [child for v in level for child in (v.values() if isinstance(v, dict) else v)]
    return depth


def _no_constant(name: str) -> float:
    raise ValueError(f"`{name}` is no number")


def _number(digits: str) -> float:
    """A number; one without a fraction is an integer, as JSON Schema has it: 16.0 is 16."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"`{digits[:20]}` is too large")
    return int(number) if number.is_integer() and abs(number) < MAX_WHOLE else number
