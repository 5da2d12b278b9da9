"""Chat templates render as Transformers renders them; what is wrong is said in one sentence."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast

from offramp.errors import InvalidParameter, TokenizerError
from offramp.tokenizer import Tokenizer
from tests.tokenizer.toys import byte_level

CHATML = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
BLOCKS = """
    {%- for message in messages %}
    {% if message.role == "system" %}
        {% continue %}
    {% endif %}
[{{ message.role }}] {{ message.content | trim }} {{ message | tojson }}
    {% endfor %}
{{ bos_token }}{{ eos_token }}{% if tools %}tools{% endif %}
"""
MARKED = """{% for m in messages %}[{{ m.role }}]{% if m.role == "user" %}{% generation %}
  {{ m.content }}{% if loop.first %}first{% endif %}
{% endgeneration %}{% endif %}{% endfor %}"""
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " é <b>'hi' "}]


def tokenizer(template: str | None) -> Tokenizer:
    return Tokenizer(byte_level(), bos="<|start|>", eos="<|end|>", chat_template=template)


@pytest.mark.parametrize("template", [CHATML, BLOCKS, MARKED], ids=["chatml", "blocks", "marked"])
@pytest.mark.parametrize("generate", [True, False])
def test_rendering_equals_transformers(template: str, generate: bool) -> None:
    reference = cast(Any, PreTrainedTokenizerFast)(
        tokenizer_object=byte_level(), bos_token="<|start|>", eos_token="<|end|>"
    )
    reference.chat_template = template
    expected = reference.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=generate)
    assert tokenizer(template).apply_chat_template(CHAT, add_generation_prompt=generate) == expected


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rendered = tokenizer(CHATML).apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=False)
    assert rendered == "<|start|>user\nab<|end|>\n"


def test_tojson_does_not_escape_html_or_unicode() -> None:
    rendered = tokenizer("{{ messages[0].content | tojson }}").apply_chat_template([{"role": "user", "content": "<é>"}])
    assert rendered == json.dumps("<é>", ensure_ascii=False)


def test_the_date_is_at_hand() -> None:
    year = tokenizer("{{ strftime_now('%Y') }}").apply_chat_template(CHAT)
    assert year.isdigit()


def test_without_a_template_the_way_out_is_named() -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer(None).apply_chat_template(CHAT)
    assert caught.value.message == "the model has no chat template"
    assert caught.value.hint == "send a plain prompt, or add `chat_template.jinja` to the model's folder"


def test_a_template_that_is_not_jinja_is_refused() -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer("\n{% if %}").apply_chat_template(CHAT)
    assert caught.value.message == (
        "the chat template is not valid Jinja: line 2: Expected an expression, got 'end of statement block'"
    )


def test_messages_that_the_template_refuses_are_an_invalid_parameter() -> None:
    with pytest.raises(InvalidParameter) as caught:
        tokenizer("{{ raise_exception('roles must alternate') }}").apply_chat_template(CHAT)
    assert caught.value.message == "the chat template refuses the messages: roles must alternate"
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[9].role }}", "list object has no element 9"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.__class__.__mro__ }}", "access to attribute '__class__' of 'list' object is unsafe."),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
    ],
)
def test_a_template_that_fails_says_why(template: str, reason: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer(template).apply_chat_template(CHAT)
    assert caught.value.message == f"the chat template failed: {reason}"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "`messages` must be a non-empty list of messages"),
        ([], "`messages` must be a non-empty list of messages"),
        (["hi"], "`messages[0]` must be an object with `role` and `content`, not str"),
        ([{"content": "a"}], "`messages[0].role` must be a string such as `user`"),
        ([*CHAT, {"role": 1, "content": "a"}], "`messages[2].role` must be a string such as `user`"),
        ([{"role": "user"}], "`messages[0].content` must be a string or a list of text parts"),
        ([{"role": "user", "content": 3}], "`messages[0].content` must be a string or a list of text parts"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "`messages[0].content` may hold only parts of type `text`",
        ),
        (
            [{"role": "assistant", "content": "a", "mood": []}],
            "`messages[0].mood` must be a string",
        ),
    ],
)
def test_messages_of_another_form_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        tokenizer(CHATML).apply_chat_template(messages)
    assert (caught.value.message, caught.value.param) == (message, "messages")


def test_a_template_that_takes_tools_shows_them_and_calls() -> None:
    source = "{{ tools | tojson }}{% for m in messages %}{{ m.tool_calls | tojson }}{% endfor %}"
    both = tokenizer(source)
    assert both.chat_template.takes_tools
    assert not tokenizer(CHATML).chat_template.takes_tools
    calls = [{"function": {"name": "time", "arguments": {}}}]
    shown = both.apply_chat_template([{"role": "assistant", "tool_calls": calls}], tools=[{"name": "time"}])
    assert shown == '[{"name": "time"}][{"function": {"name": "time", "arguments": {}}}]'
