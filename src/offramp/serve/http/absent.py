"""OpenAI's endpoints that do not apply to a server of one text model: 501, in OpenAI's form."""

from __future__ import annotations

from fastapi import APIRouter

from offramp.serve.http.errors import Refusal

router = APIRouter(include_in_schema=False)

ABSENT = (
    "assistants",
    "audio",
    "batches",
    "chatkit",
    "containers",
    "conversations",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "moderations",
    "organization",
    "realtime",
    "responses",
    "rerank",
    "score",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def absent(what: str) -> None:
    """Not served.

    Raises:
        Refusal: always.
    """
    raise Refusal(
        501,
        f"`/v1/{what}` is not served",
        code="not_implemented",
        hint="there are `/v1/chat/completions`, `/v1/completions` and `/v1/models`",
    )


def _add(name: str) -> None:
    async def refuse() -> None:
        await absent(name)

    router.add_api_route(f"/v1/{name}", refuse, methods=METHODS)
    router.add_api_route(f"/v1/{name}/{{rest:path}}", refuse, methods=METHODS)


for _name in ABSENT:
    _add(_name)
