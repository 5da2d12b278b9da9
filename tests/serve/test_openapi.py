"""What schemathesis makes of the server's own OpenAPI document: whatever is sent, the answer is one that it describes.

Requests are drawn from the document: as it allows them, as it does not, and, since most of the former say something
that no schema can forbid (two prompts, a model that is not served), around ones that have an answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from tests.serve.live import Live, stage
from tests.serve.site import ask

KEY = {"Authorization": "Bearer secret"}

MESSAGES = {"messages": [{"role": "user", "content": "Name three rivers."}], "model": "fake", "max_tokens": 9}
PROMPT = {"prompt": "Name three rivers.", "model": "fake"}
ANSWERED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**MESSAGES, "max_completion_tokens": None, "tools": None},
    "/v1/completions": {**PROMPT, "max_tokens": 9, "best_of": None},
    "/generate": {"prompt": "Name three rivers.", "messages": None, "prompt_token_ids": None, "max_tokens": 9},
    "/tokenize": {**PROMPT, "messages": None},
    "/detokenize": {"model": "fake"},
    "/apply-template": {"messages": MESSAGES["messages"], "model": "fake"},
}
"""Fields with which a request has an answer, whatever most of its other fields are."""


@cache
def document() -> Any:
    """That of a server with a key. That all it allows is accepted is not checked: no schema says all that is wrong."""
    config = schemathesis.Config.from_dict({"checks": {"positive_data_acceptance": {"enabled": False}}})
    return schemathesis.openapi.from_dict(ask("/openapi.json", api_key="secret").json(), config=config)


def fuzz(path: str, mode: str, examples: int, change: Callable[[Any], None]) -> list[int]:
    """Check a POST route with so many requests of the document's, each changed first; returns the statuses.

    The server wants a key, and must refuse the same requests without.
    """
    found: list[int] = []
    drawn = document()[path]["POST"].as_strategy(generation_mode=mode)

    def talk(url: str) -> None:
        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=drawn)
        def check(case: Any) -> None:
            change(case)
            found.append(case.call_and_validate(url, headers=KEY).status_code)

        check()

    async def scene(here: Live) -> None:
        await asyncio.to_thread(talk, here.url)

    stage(scene, api_key="secret", seconds=900, engine={"max_model_len": 256})
    return found


def keep(case: Any) -> None:
    """Send it as it was drawn."""


def make_answerable(case: Any) -> None:
    """Give it what it needs to have an answer."""
    case.body = {**case.body, **ANSWERED[case.operation.path]}


def count(quick: int) -> pytest.MarkDecorator:
    """So many requests in `make test`, forty times as many in `make test-full`."""
    return pytest.mark.parametrize("examples", [quick, pytest.param(40 * quick, marks=pytest.mark.full)])


@count(6)
@pytest.mark.parametrize("path", ANSWERED)
def test_a_request_that_the_document_allows_gets_an_answer_that_it_describes(path: str, examples: int) -> None:
    fuzz(path, GenerationMode.POSITIVE, examples, keep)


@count(8)
@pytest.mark.parametrize("path", ANSWERED)
def test_an_answer_of_success_is_one_that_the_document_describes(path: str, examples: int) -> None:
    assert 200 in fuzz(path, GenerationMode.POSITIVE, examples, make_answerable)


@count(6)
@pytest.mark.parametrize("path", ANSWERED)
def test_a_request_that_the_document_forbids_is_refused_as_it_says(path: str, examples: int) -> None:
    assert set(fuzz(path, GenerationMode.NEGATIVE, examples, keep)) <= {200, 400, 401, 404, 413}


@pytest.mark.full
def test_the_whole_program_of_schemathesis_over_a_socket() -> None:
    async def scene(here: Live) -> str:
        words = ["run", f"{here.url}/openapi.json", "-H", "Authorization: Bearer secret", "--seed", "1"]
        words += ["--max-examples", "40", "--exclude-checks", "positive_data_acceptance"]
        program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
        running = await asyncio.create_subprocess_exec(*program, *words, stdout=asyncio.subprocess.PIPE)
        said, _ = await running.communicate()
        assert running.returncode == 0, said.decode()
        return said.decode()

    said = stage(scene, api_key="secret", seconds=900, engine={"max_model_len": 256})
    assert all(phase in said for phase in ("Coverage", "Fuzzing", "Stateful")) and "failures" not in said.lower()
