"""Tools in chats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from offramp.serve.fake_output import CHATML
from offramp.serve.http.tools import Calls
from tests.serve.site import MARKED, Site, ask, chat, error_of, events, visit

PATH = "/v1/chat/completions"

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}},
    "required": ["city"],
    "$defs": {"city": {"enum": ["Bern"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time"}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_is_asked_for_is_made(choice: Any) -> None:
    choices = ask(PATH, chat(tools=TOOLS, tool_choice=choice), template=MARKED).json()["choices"]
    assert choices[0]["finish_reason"] == "tool_calls"
    message = choices[0]["message"]
    assert message["content"] is None
    [call] = message["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Bern"}


def test_a_stream_has_the_call_in_one_chunk() -> None:
    chunks = events(ask(PATH, chat(tools=TOOLS, tool_choice=NAMED, stream=True), template=MARKED))[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    [calls] = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["index"] == 0
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Bern"}
    assert all(not delta.get("content") for delta in deltas)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_that_is_cut_off_is_text() -> None:
    asked = chat(tools=TOOLS, tool_choice="required", max_tokens=5)
    [choice] = ask(PATH, asked, template=MARKED).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == '{"nam'


def test_the_schema_allows_any_of_the_tools_and_its_references_hold() -> None:
    async def scene(here: Site) -> Any:
        await here.post(PATH, chat(tools=TOOLS, tool_choice="required"))
        await here.post(PATH, chat(tools=TOOLS, tool_choice=NAMED))
        return [job.sampling.json_schema for job in here.client.jobs]

    every, one = visit(scene, template=MARKED)
    assert [call["properties"]["name"]["const"] for call in every["anyOf"]] == ["weather", "time"]
    city = "properties/arguments/$defs/city"
    assert every["anyOf"][0]["properties"]["arguments"]["properties"]["city"] == {"$ref": f"#/anyOf/0/{city}"}
    assert one["properties"]["arguments"]["properties"]["city"] == {"$ref": f"#/{city}"}


def test_results_of_calls_reach_the_template() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    text = ask("/apply-template", {"messages": messages}, template=MARKED).json()["prompt"]
    assert '{"name": "weather", "arguments": {"city": "Bern"}}' in text
    assert "<|im_start|>tool\nrain<|im_end|>" in text


def test_a_model_that_calls_marks_its_calls() -> None:
    said = 'I look. <tool_call>{"name": "time", "arguments": {}}</tool_call>'
    [choice] = ask(PATH, chat(said, tools=TOOLS, stop="</tool_call>\n"), template=MARKED).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["time"]
    assert choice["message"]["content"].endswith("I look. ")


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    async def scene(here: Site) -> Any:
        await here.post(PATH, chat(tools=TOOLS, tool_choice="none"))
        await here.post(PATH, chat())
        return [job.prompt for job in here.client.jobs]

    hidden, without = visit(scene, template=MARKED)
    assert hidden == without


@pytest.mark.parametrize(
    ("more", "template", "says"),
    [
        ({"tools": TOOLS}, CHATML, "takes no `tools`"),
        ({"tools": TOOLS}, MARKED.replace("<tool_call>", ""), "cannot be `auto`"),
        ({"tool_choice": "required"}, MARKED, "there are no `tools`"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}, MARKED, "`no`"),
        ({"tools": TOOLS, "tool_choice": "must"}, MARKED, "tool_choice"),
        ({"tools": [{"type": "search"}]}, MARKED, "tools[0]"),
        ({"tools": TOOLS, "tool_choice": NAMED, "response_format": {"type": "json_object"}}, MARKED, "no room"),
    ],
)
def test_what_cannot_be_called_is_refused(more: dict[str, Any], template: str, says: str) -> None:
    assert says in error_of(ask(PATH, chat(**more), template=template), 400)["message"]


HALF = '<tool_call>{"name": "\\ud83d"}</tool_call>'


def test_half_of_a_surrogate_pair_in_arguments_stays_escaped() -> None:
    said = []
    for text in ('{"name": "a", "arguments": {"x": "é\\ud83d"}}', '{"name": "a", "arguments": {"x": "é"}}'):
        calls = Calls(bound=True, marked=False)
        calls.push(text)
        said.append(calls.finish()[1][0]["function"]["arguments"])
    assert said == ['{"x": "\\u00e9\\ud83d"}', '{"x": "é"}']


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "said", "names"),
    [
        ("no call", "no call", []),
        ("1 < 2 <tool", "1 < 2 <tool", []),
        ('<tool_call>{"name": "a"}</tool_call>\n<tool_call>{"name": "b"}</tool_call>', "", ["a", "b"]),
        ('So: <tool_call>{"name": "a"', 'So: <tool_call>{"name": "a"', []),
        ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
        (HALF, HALF, []),
    ],
)
def test_calls_are_found_however_the_text_is_cut(size: int, text: str, said: str, names: list[str]) -> None:
    calls = Calls(bound=False, marked=True)
    pushed = "".join(calls.push(text[at : at + size]) for at in range(0, len(text), size))
    rest, found = calls.finish()
    assert pushed + rest == said
    assert [call["function"]["name"] for call in found] == names
