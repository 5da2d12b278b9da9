"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from offramp.errors import InvalidParameter
from offramp.serve.http.answer import Answer
from offramp.serve.http.answers import ChatCompletion, generating
from offramp.serve.http.dial import read_dial
from offramp.serve.http.front import Front, FrontOf, check_key
from offramp.serve.http.logprobs import chat_logprobs
from offramp.serve.http.reading import JsonRoute
from offramp.serve.http.reports import exit_trace, joined_traces
from offramp.serve.http.requests import ChatRequest, Message
from offramp.serve.http.run import Tally
from offramp.serve.http.tools import Calls, for_template, plan_tools
from offramp.serve.protocol import Piece
from offramp.tokenizer import Tokenizer

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(check_key)])


@router.post("/v1/chat/completions", responses=generating(ChatCompletion), tags=["OpenAI"])
async def chat(body: ChatRequest, request: Request, front: FrontOf) -> Response:
    """Answer a conversation."""
    tally = Tally()
    front.check_model(body.model)
    front.ready()
    asked = read_dial(body.exit, front.settings)
    schema = body.response_format.wanted() if body.response_format is not None else None
    tools = plan_tools(body, front.tokenizer)
    max_tokens = _max_tokens(body)
    sampling = body.sampling(max_tokens, _logprobs(body), schema if tools.schema is None else tools.schema)
    _, prompt = await render(front, body.messages, tools.shown)
    front.check_context(prompt, max_tokens, "messages")
    job = front.job(prompt, sampling, asked)
    writers = [ChatWriter(i, front.tokenizer, tools.calls(), asked.trace) for i in range(sampling.n)]
    kinds = ("chat.completion", "chat.completion.chunk")
    return await Answer(front, body, asked, tally, writers, kinds, "chatcmpl").respond(request, [job])


async def render(
    front: Front, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), *, generation_prompt: bool = True
) -> tuple[str, list[int]]:
    """A conversation as text and as token ids.

    Raises:
        InvalidParameter, TokenizerError: messages that the chat template refuses, or no template.
    """
    plain, tokenizer = for_template(messages), front.tokenizer

    def work() -> tuple[str, list[int]]:
        text = tokenizer.apply_chat_template(plain, generation_prompt, tools or None)
        return text, tokenizer.encode(text, add_special_tokens=False)

    return await front.compute(sum(len(str(message["content"])) for message in plain), work)


def _max_tokens(body: ChatRequest) -> int | None:
    given = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(given) > 1:
        raise InvalidParameter(
            f"`max_tokens` is {body.max_tokens}, `max_completion_tokens` {body.max_completion_tokens}",
            param="max_completion_tokens",
            hint="they mean the same: give one",
        )
    return next(iter(given), None)


def _logprobs(body: ChatRequest) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise InvalidParameter("`top_logprobs` needs `logprobs` to be true", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


@dataclass
class ChatWriter:
    """Writes one choice: what the model says, and what it calls."""

    index: int
    tokenizer: Tokenizer
    calls: Calls
    trace: bool
    taken: list[dict[str, Any]] = field(default_factory=list)
    begun: bool = False

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """A piece as choices of chunks: the role comes first, the finish reason alone and last."""
        choices = [] if self.begun else [self._choice({"role": "assistant", "content": ""})]
        self.begun = True
        text, calls, reason = self._read(piece)
        said = self._choice({"content": text} if text else {}, piece)
        if any((text, said["logprobs"], said.get("exit_trace"))):
            choices.append(said)
        if calls:
            numbered = [{"index": number, **call} for number, call in enumerate(calls)]
            choices.append(self._choice({"tool_calls": numbered}))
        if reason is not None:
            choices.append({**self._choice({}), "finish_reason": reason})
        return choices

    def take(self, piece: Piece) -> None:
        """Add a piece to the whole."""
        text, calls, reason = self._read(piece)
        self.taken.append({**self._choice({"content": text, "tool_calls": calls}, piece), "finish_reason": reason})

    def whole(self) -> dict[str, Any]:
        """The finished choice."""
        text, calls = "".join(part["delta"]["content"] for part in self.taken), self.taken[-1]["delta"]["tool_calls"]
        told = [part["logprobs"] for part in self.taken if part["logprobs"] is not None]
        logprobs = [token for part in told for token in part["content"]]
        message = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        choice: dict[str, Any] = {
            "index": self.index,
            "message": {**message, "tool_calls": calls} if calls else message,
            "logprobs": {"content": logprobs, "refusal": None} if told else None,
            "finish_reason": self.taken[-1]["finish_reason"],
        }
        return {**choice, **joined_traces(self.taken)}

    def _read(self, piece: Piece) -> tuple[str, list[dict[str, Any]], str | None]:
        """The text of a piece, the calls that are complete with it, and why it is the last."""
        text = self.calls.push(piece.text)
        if piece.finish_reason is None:
            return text, [], None
        rest, calls = self.calls.finish()
        return text + rest, calls, "tool_calls" if calls else piece.finish_reason

    def _choice(self, delta: dict[str, Any], piece: Piece | None = None) -> dict[str, Any]:
        logprobs = None if piece is None else chat_logprobs(piece, self.tokenizer)
        choice = {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        if self.trace and piece is not None:
            choice["exit_trace"] = exit_trace(piece, self.tokenizer)
        return choice
