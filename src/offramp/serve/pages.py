"""The playground, `/`, and the dashboard, `/dashboard`: plain files of this package that a browser runs as they are.

The pages fetch nothing from other hosts, and their policy forbids it; it also forbids to make HTML out of text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"

PAGES = {"/": "playground.html", "/dashboard": "dashboard.html"}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Of everything that is served; files with other endings are not."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""`no-cache`: a browser may keep a file, and asks whether it is still the same before it uses it."""


def page_router() -> APIRouter:
    """Routes to the pages and to what they consist of, none of them in the OpenAPI document. They need no key."""
    router = APIRouter()
    files = {path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
    routes = {**PAGES, **{f"/static/{name}": name for name in files if not name.endswith(".html")}}
    for route, name in routes.items():
        router.add_route(route, _answer(files[name]), methods=["GET"], include_in_schema=False)
    return router


def _answer(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """What serves a file, which is read once."""
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag, "Content-Type": TYPES[path.suffix]}

    async def answer(request: Request) -> Response:
        known = [one.strip().removeprefix("W/") for one in request.headers.get("If-None-Match", "").split(",")]
        if tag in known or "*" in known:
            return Response(status_code=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
        return Response(content, headers=headers)

    return answer
