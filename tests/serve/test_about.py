"""What the server says of itself, who may ask, and errors that all routes have in common."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from offramp._version import __version__
from offramp.serve.http import about
from tests.serve.site import Site, ask, chat, error_of, visit

GUARDED = [
    ("/v1/models", None),
    ("/v1/models/fake", None),
    ("/v1/chat/completions", chat()),
    ("/v1/completions", {"prompt": "a"}),
    ("/generate", {"prompt": "a"}),
    ("/tokenize", {"prompt": "a"}),
    ("/detokenize", {"tokens": [1]}),
    ("/apply-template", {"messages": [{"role": "user", "content": "a"}]}),
]
OPEN = ["/health", "/health/ready", "/health_generate", "/load", "/version", "/info", "/metrics", "/openapi.json"]


def test_the_served_model_is_listed() -> None:
    listed = ask("/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["max_model_len"]) == ("fake", 1024)
    assert ask("/v1/models/fake").json()["id"] == "fake"


def test_a_model_may_have_several_names_and_answers_have_the_first() -> None:
    async def scene(here: Site) -> list[Any]:
        listed = (await here.http.get("/v1/models")).json()["data"]
        one = (await here.http.get("/v1/models/b/c")).json()
        said = [(await here.post("/v1/completions", {"prompt": "a", "model": name})).json() for name in ("fake", "b/c")]
        wrong = await here.post("/v1/completions", {"prompt": "a", "model": "gpt"})
        return [[model["id"] for model in listed], one["id"], {each["model"] for each in said}, error_of(wrong, 404)]

    listed, one, said, error = visit(scene, other_names=("b/c",))
    assert (listed, one, said) == (["fake", "b/c"], "b/c", {"fake"})
    assert "`fake` and `b/c` are served" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/models/gpt", None), ("/v1/completions", {"prompt": "a", "model": "gpt"})]
)
def test_another_model_is_not_found(path: str, body: Any) -> None:
    error = error_of(ask(path, body), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "`fake` is served" in error["message"]


def test_version_health_and_facts() -> None:
    assert ask("/version").json() == {"version": __version__}
    assert ask("/health").json() == {"status": "ok"}
    assert ask("/health/ready").json() == {"status": "ready"}
    info = ask("/info", api_key="secret").json()
    assert info["engine"]["exit_layers"] == [4, 8]
    assert info["engine"]["risks"] == {"0.02": "fill", "task:0.05": "fill"}
    assert info["settings"]["api_key"] is True
    assert info["chat"] is True and ask("/info", template=None).json()["chat"] is False
    assert "secret" not in str(info)


def test_an_engine_that_starts_is_alive_and_not_ready() -> None:
    slow: dict[str, Any] = {"ready": False, "engine": {"load_seconds": 60}}
    assert ask("/health", **slow).status_code == 200
    answer = ask("/health/ready", **slow)
    assert answer.status_code == 503
    assert answer.json()["status"] == "starting"
    assert answer.json()["error"]["code"] == "engine_down"
    refused = ask("/v1/chat/completions", chat(), **slow)
    assert error_of(refused, 503)["message"].startswith("the engine is starting")
    assert int(refused.headers["Retry-After"]) > 0
    assert ask("/info", **slow).json()["engine"] is None


def test_the_load_is_the_requests_in_flight() -> None:
    async def scene(here: Site) -> list[int]:
        asked = [asyncio.create_task(here.post("/v1/completions", {"prompt": "a"})) for _ in range(3)]
        while (busy := (await here.http.get("/load")).json()["server_load"]) < 3:
            await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return [busy, (await here.http.get("/load")).json()["server_load"]]

    assert visit(scene, engine={"delay": 60.0}) == [3, 0]


def test_health_generates_a_token_where_nothing_runs() -> None:
    async def scene(here: Site) -> Any:
        answer = await here.http.get("/health_generate")
        return answer, (await here.client.stats()).output_tokens, here.metrics.begun

    answer, tokens, requests = visit(scene)
    assert (answer.status_code, answer.json(), tokens, requests) == (200, {"status": "ok"}, 1, 0)


def test_health_does_not_wait_behind_what_runs() -> None:
    async def scene(here: Site) -> Any:
        asked = [
            asyncio.create_task(here.post("/v1/completions", {"prompt": "a b", "max_tokens": 500, "ignore_eos": True}))
            for _ in range(2)
        ]
        while not (await here.client.stats()).waiting:
            await asyncio.sleep(0)
        answer, jobs = await here.http.get("/health_generate"), len(here.client.jobs)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return answer.status_code, jobs

    assert visit(scene, engine={"delay": 0.01, "max_num_seqs": 1, "max_queue": 1}) == (200, 2)


def test_an_engine_that_computes_nothing_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(about, "WORKS_SECONDS", 0.05)
    error = error_of(ask("/health_generate", engine={"delay": 60.0}), 503)
    assert (error["code"], error["message"].partition(";")[0]) == ("engine_down", "the engine took no step in 0.05 s")
    assert error_of(ask("/health_generate", ready=False, engine={"load_seconds": 60}), 503)["code"] == "engine_down"


@pytest.mark.parametrize(("path", "body"), GUARDED)
def test_guarded_routes_want_the_key(path: str, body: Any) -> None:
    async def scene(here: Site) -> list[httpx.Response]:
        way = "GET" if body is None else "POST"
        headers: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret"},
            {"Authorization": "Bearer secret"},
        ]
        return [await here.http.request(way, path, json=body, headers=one) for one in headers]

    *refused, taken = visit(scene, api_key="secret")
    for answer in refused:
        assert error_of(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert taken.status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_open_routes_want_none(path: str) -> None:
    assert ask(path, api_key="secret").status_code == 200


def test_a_path_below_a_prefix_is_guarded_as_well() -> None:
    body = {"prompt": "a"}
    assert ask("/llm/v1/completions", body, root_path="/llm", api_key="secret").status_code == 401
    assert ask("/llm/v1/completions", body, root_path="/llm").status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/audio/speech", "/v1/files/f1/content"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_endpoints_of_openai_are_not_implemented(path: str, method: str) -> None:
    assert error_of(ask(path, method=method), 501)["code"] == "not_implemented"


def test_unknown_paths_and_methods() -> None:
    assert "/v1/chat" in error_of(ask("/v1/chat"), 404)["message"]
    answer = ask("/v1/completions", method="GET")
    assert "does not take GET" in error_of(answer, 405)["message"]
    assert answer.headers["Allow"] == "POST"


def raw(content: bytes, kind: str = "application/json", **options: Any) -> httpx.Response:
    async def scene(here: Site) -> httpx.Response:
        return await here.http.post("/v1/completions", content=content, headers={"Content-Type": kind})

    return visit(scene, **options)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "nothing was sent"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b'"text"', "must be a JSON object, not str"),
        (b'{"prompt": "a", "temperature": NaN}', "`NaN` is no number"),
        (b'{"prompt": "a", "temperature": 1e999}', "too large"),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": "a", "model": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"prompt": "a"}'.encode("utf-16"), "not UTF-8"),
        (b'{"prompt": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(content: bytes, says: str) -> None:
    assert says in error_of(raw(content), 400)["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": "a", "stop": ["x"] * 17}, "`stop` should have at most 16 items, not 17"),
        ({"prompt": "a", "stop": 5}, "`stop`: input should be a valid string, not 5"),
        ({"prompt": "a", "exit": {"quality": 1}}, "unknown field `quality`; allowed: criterion, threshold, "),
    ],
)
def test_a_fault_is_told_of_the_form_that_was_meant(body: Any, says: str) -> None:
    assert error_of(ask("/v1/completions", body), 400)["message"].startswith(says)


def test_a_number_without_a_fraction_is_an_integer() -> None:
    body = b'{"prompt": "abc", "max_tokens": 2.0, "temperature": 0.0, "seed": 1e3}'
    assert raw(body).json()["usage"]["completion_tokens"] == 2
    assert "max_tokens" in error_of(raw(b'{"prompt": "abc", "max_tokens": 2.5}'), 400)["message"]


def test_only_json_is_taken() -> None:
    assert "Content-Type" in error_of(raw(b'{"prompt": "a"}', "text/plain"), 400)["message"]


def test_a_body_that_is_too_large_is_refused() -> None:
    body = b'{"prompt": "' + b"a" * 100 + b'"}'
    assert raw(body, max_body=len(body)).status_code == 200
    assert error_of(raw(body, max_body=len(body) - 1), 413)["code"] == "body_too_large"


def test_a_body_that_comes_in_pieces_is_limited_as_well() -> None:
    async def scene(here: Site) -> httpx.Response:
        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 10

        return await here.http.post("/v1/completions", content=pieces(), headers={"Content-Type": "application/json"})

    assert visit(scene, max_body=100).status_code == 413


def test_other_origins_are_let_in_only_where_they_are_named() -> None:
    headers = {"Origin": "http://page", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in ask("/v1/completions", method="OPTIONS", headers=headers).headers
    named = ask("/v1/completions", method="OPTIONS", headers=headers, cors_origins=("http://page",))
    assert named.headers["access-control-allow-origin"] == "http://page"


def test_the_openapi_document_describes_every_route_and_its_errors() -> None:
    document = ask("/openapi.json", api_key="secret").json()
    assert {path for path, _ in GUARDED if path != "/v1/models/fake"} < set(document["paths"])
    for path in ("/v1/chat/completions", "/v1/completions", "/generate"):
        responses = document["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "404", "413", "429", "500", "503"}
        assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_openapi_document_asks_for_a_key_only_where_there_is_one() -> None:
    guarded, open_to_all = (ask("/openapi.json", api_key=key).json() for key in ("secret", None))
    route = guarded["paths"]["/v1/completions"]["post"]
    assert route["security"] and guarded["components"]["securitySchemes"]
    assert "security" not in str(open_to_all) and "401" not in str(open_to_all)
