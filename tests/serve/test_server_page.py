"""docs/server.md says what the server does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params as completion
from openai.types.chat import completion_create_params as chat

from offramp.serve.http.fields import table
from offramp.serve.http.requests import ChatRequest, CompletionRequest, Generation, StreamOptions
from tests.serve.site import ask

PAGE = Path(__file__).parents[2] / "docs" / "server.md"


@pytest.mark.parametrize(
    ("title", "rows"),
    [
        ("### Both", table(Generation)),
        ("### Completions", table(CompletionRequest, beside=Generation)),
        ("### Chat completions", table(ChatRequest, beside=Generation)),
        ("### `stream_options`", table(StreamOptions)),
    ],
)
def test_its_tables_are_those_of_the_bodies(title: str, rows: str) -> None:
    assert f"{title}\n\n{rows}\n\n" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("known", "model"),
    [(completion.CompletionCreateParamsBase, CompletionRequest), (chat.CompletionCreateParamsBase, ChatRequest)],
)
def test_every_field_of_openais_client_is_listed(known: Any, model: Any) -> None:
    assert set(known.__annotations__) - set(model.model_fields) == set()


def test_every_route_is_listed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path, operations in ask("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path.replace('{model}', 'NAME')}`" in page
