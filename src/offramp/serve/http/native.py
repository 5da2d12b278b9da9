"""`POST /generate`: offramp's own form. Sampling parameters by their own names, answers with everything there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from offramp.errors import InvalidParameter
from offramp.serve.http.answers import Usage, generating
from offramp.serve.http.chat import render
from offramp.serve.http.dial import Asked, ExitDial, read_dial
from offramp.serve.http.fields import Body
from offramp.serve.http.front import Front, FrontOf, check_key
from offramp.serve.http.reading import JsonRoute
from offramp.serve.http.reports import ExitSummary, TracedToken, exit_summary, exit_trace
from offramp.serve.http.requests import Message, Stops, TokenId, read_bias
from offramp.serve.http.run import Choice, Tally
from offramp.serve.http.sse import open_stream, unless_gone
from offramp.serve.protocol import Piece
from offramp.types.sampling import MAX_SEED, SamplingParams

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(check_key)])

SIZE = Field(None, ge=0, lt=2**31)


class GenerateRequest(Body):
    """One of `prompt`, `messages` and `prompt_token_ids`, sampling parameters as `SamplingParams` has them, `exit`."""

    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=10_000)
    prompt_token_ids: list[TokenId] | None = Field(None, min_length=1)
    exit: ExitDial | None = None
    stream: bool = False
    json_schema: dict[str, Any] | None = Field(None, description="Every output satisfies it; {} for any object.")
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = SIZE
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    n: int | None = Field(None, ge=1, le=128)
    max_tokens: int | None = Field(256, ge=1, lt=2**31, description="null fills the context.")
    min_tokens: int | None = SIZE
    stop: Stops = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=256)
    ignore_eos: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=100)

    def sampling(self) -> SamplingParams:
        """The sampling parameters.

        Raises:
            InvalidParameter: a value that is not allowed.
        """
        given = {f.name: value for f in fields(SamplingParams) if (value := getattr(self, f.name)) is not None}
        return SamplingParams(
            **{**given, "max_tokens": self.max_tokens, "logit_bias": read_bias(self.logit_bias or {})}
        )


class GeneratedOutput(BaseModel):
    """One output; a stream sends its pieces in this form."""

    index: int
    text: str
    token_ids: list[int]
    exit_layers: list[int]
    confidences: list[float | None]
    logprobs: list[list[tuple[int, float]]] | None = Field(description="The token's own first, then the likeliest.")
    finish_reason: str | None
    report: dict[str, Any] | None = Field(description="The `ExitReport` of a finished output.")
    exit_trace: list[TracedToken] | None = None


class Generated(BaseModel):
    """Answer of `/generate`. A stream sends events with `outputs` only, the last one with everything."""

    outputs: list[GeneratedOutput]
    usage: Usage
    exit: ExitSummary


@router.post("/generate", responses=generating(Generated), tags=["offramp"])
async def generate(body: GenerateRequest, request: Request, front: FrontOf) -> Response:
    """Generate, and say where each token left."""
    tally = Tally()
    info = front.ready()
    asked, sampling = read_dial(body.exit, front.settings), body.sampling()
    name, prompt = await _prompt(body, front)
    front.check_context(prompt, None, name)
    job = front.job(prompt, sampling, asked)
    answer = NativeAnswer(front, asked, tally, info.num_layers, sampling.n)
    choices = front.run(request, [job], asked, tally)
    if body.stream:
        return await open_stream(request, answer.events(choices), front.settings)
    return JSONResponse(await unless_gone(request, answer.whole(choices)))


async def _prompt(body: GenerateRequest, front: Front) -> tuple[str, list[int]]:
    """The name of the field that has the prompt, and its token ids.

    Raises:
        InvalidParameter: none, or more than one.
    """
    given = [name for name in ("prompt", "messages", "prompt_token_ids") if getattr(body, name) is not None]
    if len(given) != 1:
        what = " and ".join(f"`{name}`" for name in given) or "no prompt"
        hint = "give one of `prompt`, `messages` and `prompt_token_ids`"
        raise InvalidParameter(f"the request has {what}", param=given[-1] if given else "prompt", hint=hint)
    if body.prompt is not None:
        return "prompt", await front.encode(body.prompt, special=True)
    if body.messages is not None:
        return "messages", (await render(front, body.messages))[1]
    return "prompt_token_ids", body.prompt_token_ids or []


@dataclass
class NativeAnswer:
    """The answer to one request, whole or in pieces."""

    front: Front
    asked: Asked
    tally: Tally
    num_layers: int
    left: int
    outputs: dict[int, dict[str, Any]] = field(default_factory=dict)

    async def whole(self, choices: AsyncGenerator[Choice, None]) -> dict[str, Any]:
        """The body of a plain answer."""
        async with aclosing(choices):
            async for number, piece in choices:
                _add(self.outputs.setdefault(number, self._output(number)), self._output(number, piece))
        return {"outputs": [self.outputs[number] for number in sorted(self.outputs)], **self._sums()}

    async def events(self, choices: AsyncGenerator[Choice, None]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a stream."""
        async with aclosing(choices):
            async for number, piece in choices:
                self.left -= piece.finish_reason is not None
                event = {"outputs": [self._output(number, piece)]}
                yield event if self.left else {**event, **self._sums()}

    def _output(self, number: int, piece: Piece | None = None) -> dict[str, Any]:
        piece = piece or Piece(number, "")
        output: dict[str, Any] = {
            "index": number,
            "text": piece.text,
            "token_ids": list(piece.token_ids),
            "exit_layers": list(piece.exit_layers),
            "confidences": list(piece.confidences),
            "logprobs": None if piece.logprobs is None else list(piece.logprobs),
            "finish_reason": piece.finish_reason,
            "report": None if piece.report is None else piece.report.to_dict(),
        }
        return {**output, "exit_trace": exit_trace(piece, self.front.tokenizer)} if self.asked.trace else output

    def _sums(self) -> dict[str, Any]:
        summary = exit_summary(self.tally.report, self.asked, self.num_layers)
        return {"usage": self.tally.usage(), "exit": summary}


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for name in ("text", "token_ids", "exit_layers", "confidences", "exit_trace"):
        if name in part:
            whole[name] += part[name]
    if part["logprobs"] is not None:
        whole["logprobs"] = (whole["logprobs"] or []) + part["logprobs"]
    whole["finish_reason"], whole["report"] = part["finish_reason"], part["report"]
