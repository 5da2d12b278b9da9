"""`/v1/chat/completions`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.site import Site, ask, chat, error_of, events, visit

PATH = "/v1/chat/completions"
SAID = "user\nHi\nassistant\n"


def answer(text: str = "Hi", **more: Any) -> dict[str, Any]:
    got = ask(PATH, chat(text, **more))
    assert got.status_code == 200, got.text
    body: dict[str, Any] = got.json()
    return body


def test_a_conversation_is_answered() -> None:
    body = answer(model="fake")
    assert body["object"] == "chat.completion"
    message = {"role": "assistant", "content": SAID, "refusal": None}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]


def test_text_parts_are_joined_and_pictures_are_refused() -> None:
    parts: list[Any] = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert ask(PATH, body).json()["choices"][0]["message"]["content"] == SAID
    parts.append({"type": "image_url", "image_url": {"url": "data:"}})
    assert "only parts of type `text`" in error_of(ask(PATH, body), 400)["message"]


def test_a_stream_has_a_role_first_and_one_finish_chunk_for_each_choice() -> None:
    chunks = events(ask(PATH, chat(n=2, stream=True)))
    assert chunks.pop() == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    for index in (0, 1):
        parts = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert parts[0]["delta"] == {"role": "assistant", "content": ""}
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["stop"]
        assert parts[-1]["delta"] == {}
        words = SAID[index:] + SAID[:index]
        assert "".join(part["delta"].get("content", "") for part in parts) == words


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    chunks = events(ask(PATH, chat(stream=True, stream_options={"include_usage": True})))
    *others, last, done = chunks
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(SAID) + 1
    assert all(chunk["usage"] is None for chunk in others)


def test_usage_may_be_in_every_chunk() -> None:
    options = {"continuous_usage_stats": True}
    counts = [
        c["usage"]["completion_tokens"] for c in events(ask(PATH, chat(stream=True, stream_options=options)))[:-1]
    ]
    assert counts == sorted(counts) and counts[-1] == len(SAID) + 1


def test_log_probabilities_of_an_output() -> None:
    content = answer(logprobs=True, top_logprobs=1, max_tokens=2)["choices"][0]["logprobs"]["content"]
    own = {"token": "u", "logprob": -0.5, "bytes": [117]}
    assert content[0] == {**own, "top_logprobs": [own]}
    assert len(content) == 2
    assert answer(logprobs=True, max_tokens=1)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_a_stream_has_the_same_log_probabilities() -> None:
    asked = chat(logprobs=True, top_logprobs=2)
    plain = ask(PATH, asked).json()["choices"][0]["logprobs"]["content"]
    chunks = events(ask(PATH, {**asked, "stream": True}))[:-1]
    told = [token for c in chunks if c["choices"][0]["logprobs"] for token in c["choices"][0]["logprobs"]["content"]]
    assert told == plain


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_most_tokens(name: str) -> None:
    asked: dict[str, Any] = {name: 2}
    body = answer("Hi", **asked)
    assert body["choices"][0]["message"]["content"] == SAID[:2]
    assert body["choices"][0]["finish_reason"] == "length"


def test_without_a_limit_the_context_is_filled() -> None:
    async def scene(here: Site) -> Any:
        await here.post(PATH, chat())
        return here.client.jobs[0].sampling.max_tokens

    assert visit(scene) is None


def test_stop_strings_end_an_output() -> None:
    assert answer(stop="i\n")["choices"][0]["message"]["content"] == "user\nH"


def test_response_formats_are_schemas() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    formats = [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {}),
        ({"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": schema}}, schema),
    ]

    async def scene(here: Site) -> Any:
        answers = [await here.post(PATH, chat(response_format=form)) for form, _ in formats]
        texts = [one.json()["choices"][0]["message"]["content"] for one in answers]
        return [job.sampling.json_schema for job in here.client.jobs], texts

    schemas, texts = visit(scene)
    assert schemas == [wanted for _, wanted in formats]
    assert json.loads(texts[2]) == {"a": 1}


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "Hi", "mood": 3}]}, "messages"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "x"}}}, "response_format"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], param: str) -> None:
    error = error_of(ask(PATH, chat(**wrong)), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_fields_without_effect_and_nulls_are_taken() -> None:
    body = answer(
        user="me", store=True, metadata={"a": "b"}, verbosity="low", seed=None, tools=None, audio=None, functions=[]
    )
    assert body["choices"][0]["message"]["content"] == SAID


def test_a_misspelt_field_gets_the_nearest_name() -> None:
    error = error_of(ask(PATH, chat(max_token=3)), 400)
    assert error["message"] == "unknown field `max_token`; did you mean `max_tokens`?"
    assert error["param"] == "max_token"


def test_a_model_without_a_template_cannot_chat() -> None:
    error = error_of(ask(PATH, chat(), template=None), 400)
    assert "no chat template" in error["message"]
