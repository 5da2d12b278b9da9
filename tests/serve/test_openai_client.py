"""OpenAI's own client, over a real connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.serve.live import Live, stage

HI: Any = [{"role": "user", "content": "Hi"}]
SAID = "user\nHi\nassistant\n"


def aclient(here: Live, **more: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{here.url}/v1", **{"api_key": "none", "max_retries": 0, **more})


def test_the_synchronous_client() -> None:
    def talk(url: str) -> Any:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            names = [model.id for model in client.models.list()]
            answer = client.chat.completions.create(model=names[0], messages=HI, extra_body={"exit": "lossless"})
            return names, answer

    async def scene(here: Live) -> Any:
        return await asyncio.to_thread(talk, here.url)

    names, answer = stage(scene)
    assert names == ["fake"]
    assert answer.choices[0].message.content == SAID
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.exit["asked"] == "lossless"


def test_a_stream() -> None:
    async def scene(here: Live) -> Any:
        async with aclient(here) as client:
            stream = await client.chat.completions.create(
                model="fake", messages=HI, stream=True, n=2, stream_options={"include_usage": True}, logprobs=True
            )
            return [chunk async for chunk in stream]

    *chunks, last = stage(scene)
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [SAID, SAID[1:] + SAID[:1]]
    assert last.usage.completion_tokens == 2 * (len(SAID) + 1)


def test_the_streaming_helper_collects_the_answer() -> None:
    async def scene(here: Live) -> Any:
        async with aclient(here) as client, client.chat.completions.stream(model="fake", messages=HI) as stream:
            return await stream.get_final_completion()

    assert stage(scene).choices[0].message.content == SAID


def test_completions() -> None:
    async def scene(here: Live) -> Any:
        async with aclient(here) as client:
            plain = await client.completions.create(model="fake", prompt=["ab", "cd"], logprobs=2, echo=True)
            stream = await client.completions.create(model="fake", prompt="ab", stream=True)
            return plain, [chunk.choices[0].text async for chunk in stream]

    plain, chunks = stage(scene)
    assert [choice.text for choice in plain.choices] == ["abab", "cdcd"]
    assert plain.choices[0].logprobs.tokens == ["a", "b", "a", "b", "<|im_end|>"]
    assert "".join(chunks) == "ab"


def test_tools_and_schemas() -> None:
    function: Any = {"name": "time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}

    async def scene(here: Live) -> Any:
        async with aclient(here) as client:
            tools: Any = [{"type": "function", "function": function}]
            called = await client.chat.completions.create(
                model="fake", messages=HI, tools=tools, tool_choice="required"
            )
            bound = await client.chat.completions.create(model="fake", messages=HI, response_format=form)
            return called, bound

    called, bound = stage(scene)
    [call] = called.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("time", {"zone": "text"})
    assert json.loads(bound.choices[0].message.content) == {"size": 1}


def test_its_errors() -> None:
    async def scene(here: Live) -> Any:
        failures = []
        async with aclient(here, api_key="right") as client, aclient(here, api_key="wrong") as stranger:
            for who, body in (
                (client, {"model": "gpt"}),
                (client, {"model": "fake", "temperature": 1000}),
                (stranger, {"model": "fake"}),
            ):
                with pytest.raises(openai.APIStatusError) as caught:
                    await who.chat.completions.create(messages=HI, **body)
                failures.append(caught.value)
            with pytest.raises(openai.APIStatusError) as caught:
                await client.embeddings.create(model="fake", input="a")
        return [*failures, caught.value]

    missing, wrong, stranger, absent = stage(scene, api_key="right")
    assert isinstance(missing, openai.NotFoundError) and missing.code == "model_not_found"
    assert isinstance(wrong, openai.BadRequestError) and wrong.param == "temperature"
    assert isinstance(stranger, openai.AuthenticationError)
    assert absent.status_code == 501


def test_an_error_in_a_stream_is_raised() -> None:
    async def scene(here: Live) -> Any:
        async with aclient(here) as client:
            asked: Any = [{"role": "user", "content": "x" * 300}]
            stream = await client.chat.completions.create(model="fake", messages=asked, stream=True)
            with pytest.raises(openai.APIError) as caught:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        await here.client.crash()
            return caught.value

    assert "the engine's process ended" in stage(scene, engine={"delay": 0.01}).message
