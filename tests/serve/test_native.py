"""`/generate`, and the routes for tokens."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from offramp.serve.http.native import GenerateRequest
from offramp.types.sampling import SamplingParams
from tests.serve.site import MARKED, ask, chat, error_of, events


def test_sampling_parameters_have_their_own_names_and_defaults() -> None:
    names = {f.name for f in fields(SamplingParams)}
    assert names < set(GenerateRequest.model_fields)
    assert GenerateRequest.model_validate({"prompt": "a"}).sampling() == SamplingParams()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": "abc"}, "abc"),
        ({"prompt_token_ids": [66, 67]}, "ab"),
        (chat("Hi"), "user\nHi\nassistant\n"),
    ],
)
def test_the_three_kinds_of_prompts(body: dict[str, Any], text: str) -> None:
    assert ask("/generate", body).json()["outputs"][0]["text"] == text


def test_an_output_has_everything() -> None:
    body = ask("/generate", {"prompt": "abc", "logprobs": 1, "exit": "lossless"}).json()
    [output] = body["outputs"]
    assert output["token_ids"] == [66, 67, 68, 1]
    assert len(output["exit_layers"]) == len(output["confidences"]) == len(output["logprobs"]) == 4
    assert output["logprobs"][0] == [[66, -0.5], [66, -0.5]]
    assert output["report"]["depth"] == 12
    assert output["finish_reason"] == "stop"


def test_a_stream_says_the_same() -> None:
    asked = {"prompt": "abc", "n": 2, "logprobs": 0, "exit": {"kv": "fill"}}
    plain = ask("/generate", asked).json()
    chunks = events(ask("/generate", {**asked, "stream": True}))
    assert chunks.pop() == "[DONE]"
    for output in plain["outputs"]:
        parts = [part for chunk in chunks for part in chunk["outputs"] if part["index"] == output["index"]]
        for name in ("token_ids", "exit_layers", "confidences", "logprobs"):
            assert [value for part in parts for value in part[name]] == output[name]
        assert parts[-1]["report"] == output["report"]
    assert (chunks[-1]["usage"], chunks[-1]["exit"]) == (plain["usage"], plain["exit"])


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "prompt_token_ids": [1]}, {"prompt": "a", "temprature": 1}])
def test_a_request_has_one_prompt_and_known_names(body: dict[str, Any]) -> None:
    assert error_of(ask("/generate", body), 400)["param"] is not None


def test_a_schema_binds_the_output() -> None:
    body = ask("/generate", {"prompt": "a", "json_schema": {"const": [1, 2]}}).json()
    assert body["outputs"][0]["text"] == "[1, 2]"


def test_a_text_becomes_tokens_and_text_again() -> None:
    ids = ask("/tokenize", {"prompt": "aé", "return_token_strs": True}).json()
    assert ids["tokens"][0] == 66
    assert ids["count"] == 3
    assert ids["max_model_len"] == 1024
    assert ids["token_strs"] == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert ask("/detokenize", {"tokens": ids["tokens"]}).json() == {"prompt": "aé"}


def test_a_conversation_becomes_tokens_as_its_template_has_it() -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    messages = chat("Hi")["messages"]
    assert ask("/apply-template", {"messages": messages}).json() == {"prompt": text}
    assert ask("/tokenize", {"messages": messages}).json() == ask("/tokenize", {"prompt": text}).json()
    short = ask("/apply-template", {"messages": messages, "add_generation_prompt": False}).json()
    assert short == {"prompt": text.removesuffix("<|im_start|>assistant\n")}


def test_what_a_message_says_is_no_template() -> None:
    text = "{{ 7 * 7 }}{% for _ in range(10**9) %}{% endfor %}{{ messages.__class__ }}"
    assert text in ask("/apply-template", {"messages": chat(text)["messages"]}).json()["prompt"]


def test_a_template_shows_tools() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    body = {"messages": chat("Hi")["messages"], "tools": tools}
    assert '"weather"' in ask("/apply-template", body, template=MARKED).json()["prompt"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**40]}, "tokens[0]"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
    ],
)
def test_wrong_requests_for_tokens_are_refused(path: str, body: dict[str, Any], param: str) -> None:
    assert error_of(ask(path, body), 400)["param"] == param


def test_a_long_text_is_tokenised_all_the_same() -> None:
    assert ask("/tokenize", {"prompt": "a" * 100_000}).json()["count"] == 100_000
