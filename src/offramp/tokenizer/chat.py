"""Chat templates: Jinja programs that come with a model and turn messages into a prompt.

They are third-party code, so they run in Jinja's immutable sandbox and see nothing but plain data. The environment is
the one that templates are written for: Hugging Face Transformers', "Chat templates".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from offramp.errors import InvalidParameter, TokenizerError


class _Refused(TemplateError):
    """A template called `raise_exception`."""


class Generation(Extension):
    """The tag `{% generation %}`, which marks what the assistant said for those who train on it: here it is nothing."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled chat template. `takes_tools` says whether it can show functions that may be called.

    Raises:
        TokenizerError: `source` is not valid Jinja.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
            self.takes_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template is not valid Jinja: line {error.lineno}: {error.message}"
            ) from error
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt text for `messages`, with the `tools` that may be called.

        Raises:
            InvalidParameter: messages of the wrong form, or that the template refuses.
            TokenizerError: the template fails.
        """
        plain = check_messages(messages)
        try:
            return self._template.render(
                messages=plain,
                add_generation_prompt=add_generation_prompt,
                tools=None if tools is None else list(tools),
                documents=None,
                **self._tokens,
            )
        except _Refused as error:
            raise InvalidParameter(f"the chat template refuses the messages: {error}", param="messages") from error
        except Exception as error:  # a template can fail in any way that an expression can
            raise TokenizerError(f"the chat template failed: {error}") from error


def check_messages(messages: object) -> list[dict[str, Any]]:
    """Messages as plain dictionaries whose content is one string.

    A message is a mapping with a `role` and a `content`: a string, or a list of OpenAI's text parts
    {"type": "text", "text": ...}, which are joined. Further keys are passed on if they are strings; `tool_calls`, a
    list, may stand in for the content.

    Raises:
        InvalidParameter: anything else.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise _wrong("`messages` must be a non-empty list of messages")
    return [_message(index, message) for index, message in enumerate(messages)]


def _message(index: int, message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _wrong(f"`messages[{index}]` must be an object with `role` and `content`, not {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _wrong(f"`messages[{index}].role` must be a string such as `user`")
    for key, value in message.items():
        if key == "tool_calls" and isinstance(value, list):
            continue
        if key != "content" and not isinstance(value, str) and value is not None:
            raise _wrong(f"`messages[{index}].{key}` must be a string")
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        content = ""
    extra = {str(key): value for key, value in message.items() if value is not None}
    return {**extra, "role": role, "content": _content(index, content)}


def _content(index: int, content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise _wrong(f"`messages[{index}].content` must be a string or a list of text parts")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise _wrong(f"`messages[{index}].content` may hold only parts of type `text`")
        texts.append(text)
    return "".join(texts)


def _wrong(message: str) -> InvalidParameter:
    return InvalidParameter(message, param="messages")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
