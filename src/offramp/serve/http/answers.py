"""Bodies of answers, for the OpenAPI document; routes write them as plain dictionaries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from offramp.serve.http.errors import RESPONSES
from offramp.serve.http.logprobs import ChatLogProbs, CompletionLogProbs
from offramp.serve.http.reports import ExitSummary, TracedToken
from offramp.serve.http.requests import ToolCall

Finish = Literal["stop", "length", "tool_calls"]


class CachedTokens(BaseModel):
    """Prompt tokens whose KV was there already."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a request, over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionChoice(BaseModel):
    """A continued text."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Finish | None
    exit_trace: list[TracedToken] | None = Field(None, description="With `exit.trace`.")


class Completion(BaseModel):
    """Answer of `/v1/completions`. A stream sends the same in chunks, whose last one has `exit`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    exit: ExitSummary


class ChatMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogProbs | None
    finish_reason: Finish
    exit_trace: list[TracedToken] | None = Field(None, description="With `exit.trace`.")


class ChatCompletion(BaseModel):
    """Answer of `/v1/chat/completions`. A stream sends chunks with a `delta`; the last finish chunk has `exit`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    exit: ExitSummary


def generating(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The responses of a generating route: an answer, a stream, or an error."""
    # Without a type: some readers of such a document take the schema for that of one event, others for the whole.
    stream = {"text/event-stream": {"schema": {"description": "`data: {...}` lines, then `data: [DONE]`."}}}
    return {200: {"model": model, "description": "The answer", "content": stream}, **RESPONSES}
