"""Tools: what a model must write to call a function, and finding the calls in what it wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from offramp.errors import InvalidParameter, Unsupported
from offramp.serve.http.requests import ChatRequest, Function, Message, Tool, ToolChoice
from offramp.tokenizer import StopStrings, Tokenizer

OPENING = "<tool_call>"
CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What tools mean for a request: those that the template is shown, the schema that outputs must satisfy, and
    whether calls are marked in free text."""

    shown: tuple[dict[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    marked: bool = False

    def calls(self) -> Calls:
        """A reader for one output."""
        return Calls(bound=self.schema is not None, marked=self.marked)


def plan_tools(body: ChatRequest, tokenizer: Tokenizer) -> ToolPlan:
    """What the tools of a request mean.

    Raises:
        InvalidParameter: a choice that fits no tool, or a format beside a call.
        Unsupported: the model's chat template takes no tools, or marks no calls.
    """
    tools, choice = body.tools or [], body.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InvalidParameter("`tool_choice` asks for a call, and there are no `tools`", param="tool_choice")
        return ToolPlan()
    if choice == "none":
        return ToolPlan()
    template = tokenizer.chat_template
    if not template.takes_tools:
        raise Unsupported(
            "the model's chat template takes no `tools`", hint='leave them out, or set `tool_choice` to "none"'
        )
    shown = tuple(tool.model_dump(exclude_unset=True) for tool in tools)
    if choice in (None, "auto"):
        if OPENING not in template.source:
            raise Unsupported(
                f"`tool_choice` cannot be `auto`: the model's chat template does not mark calls by `{OPENING}`",
                hint='set it to "required", or name a function',
            )
        return ToolPlan(shown, marked=True)
    if body.response_format is not None and body.response_format.type != "text":
        raise InvalidParameter("`response_format` leaves no room for a call", param="response_format")
    return ToolPlan(shown, schema=_schema(_chosen(tools, choice)))


def _chosen(tools: Sequence[Tool], choice: object) -> Sequence[Tool]:
    if not isinstance(choice, ToolChoice):
        return tools
    name = choice.function.name
    chosen = [tool for tool in tools if tool.function.name == name]
    if not chosen:
        names = ", ".join(f"`{tool.function.name}`" for tool in tools)
        raise InvalidParameter(
            f"`tool_choice` names `{name}`, which is no tool", param="tool_choice", hint=f"there are {names}"
        )
    return chosen[:1]


def _schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """A JSON schema of a call of one of the tools."""
    if len(tools) == 1:
        return _call(tools[0].function, "#")
    return {"anyOf": [_call(tool.function, f"#/anyOf/{number}") for number, tool in enumerate(tools)]}


def _call(function: Function, place: str) -> dict[str, Any]:
    """The schema of a call of one function. `place` is where it lies: references in the parameters are moved there."""
    parameters = _moved(function.parameters or {"type": "object"}, f"{place}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    if isinstance(schema, list):
        return [_moved(part, place) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(part, place) for name, part in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved


class Calls:
    """Separates what one output says from the functions it calls.

    Args:
        bound: the output is a call and nothing else.
        marked: calls stand between `<tool_call>` and `</tool_call>`.
    """

    def __init__(self, *, bound: bool, marked: bool) -> None:
        self._bound = bound
        self._opening = StopStrings([OPENING]) if marked else None
        self._all = ""
        self._said = 0

    def push(self, text: str) -> str:
        """Take text; returns what of it is certainly no call."""
        if self._opening is None:
            self._all += text if self._bound else ""
            return "" if self._bound else text
        self._all += text
        said = self._opening.push(text)[0]
        self._said += len(said)
        return said

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """The text that was held back and is no call, and the calls. What looks like a call and is none is text."""
        rest = self._all[self._said :]
        if self._opening is None and not self._bound:
            return "", []
        found = [rest] if self._bound else CALL.findall(rest)
        calls = [call for text in found if (call := _read_call(text)) is not None]
        return ("", calls) if calls and len(calls) == len(found) else (rest, [])


def _read_call(text: str) -> dict[str, Any] | None:
    """A call in OpenAI's form; None where the text is none."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    written = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(name, str) or not _is_text(name):
        return None
    function = {"name": name, "arguments": written if _is_text(written) else json.dumps(arguments)}
    return {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}


def _is_text(text: str) -> bool:
    """Whether it can be sent: the model may have escaped half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates take them: the arguments of calls as values, and nothing that is empty.

    Raises:
        InvalidParameter: arguments that are not JSON.
    """
    plain = []
    for number, message in enumerate(messages):
        values = {name: value for name, value in message.model_dump(exclude_none=True).items() if value != []}
        values.setdefault("content", None)
        for call in values.get("tool_calls", ()):
            try:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            except (ValueError, RecursionError):
                where = f"messages[{number}].tool_calls"
                raise InvalidParameter(f"`{where}` has `arguments` that are not JSON", param=where) from None
        plain.append(values)
    return plain
