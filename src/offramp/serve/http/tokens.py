"""`/tokenize`, `/detokenize` and `/apply-template`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from offramp.errors import InvalidParameter
from offramp.serve.http.chat import render
from offramp.serve.http.errors import RESPONSES
from offramp.serve.http.fields import Body
from offramp.serve.http.front import FrontOf, check_key
from offramp.serve.http.logprobs import token_text
from offramp.serve.http.reading import JsonRoute
from offramp.serve.http.requests import Message, TokenId, Tool

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(check_key)], tags=["offramp"])

FAILURES: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (400, 401, 404, 413)}


class TokenizeRequest(Body):
    """A text, or a conversation as the chat template has it."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    add_special_tokens: bool = Field(True, description="Of a text: with the tokens that go around it.")
    add_generation_prompt: bool = Field(True, description="Of a conversation: with what begins the answer.")
    return_token_strs: bool = False


class Tokenized(BaseModel):
    """Token ids."""

    count: int
    max_model_len: int | None = Field(description="null while the engine has never been ready.")
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Body):
    """Token ids."""

    model: str | None = None
    tokens: list[TokenId]
    skip_special_tokens: bool = False


class Detokenized(BaseModel):
    """Their text."""

    prompt: str


class TemplateRequest(Body):
    """A conversation."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True


@router.post("/tokenize", response_model=Tokenized, responses=FAILURES)
async def tokenize(body: TokenizeRequest, front: FrontOf) -> Response:
    """The token ids of a text or a conversation."""
    front.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidParameter("give either `prompt` or `messages`", param="prompt")
    if body.messages is not None:
        ids = (await render(front, body.messages, generation_prompt=body.add_generation_prompt))[1]
    else:
        ids = await front.encode(body.prompt or "", special=body.add_special_tokens)
    info = front.client.info
    strings = [token_text(token, front.tokenizer) for token in ids] if body.return_token_strs else None
    room = None if info is None else info.max_model_len
    return JSONResponse({"count": len(ids), "max_model_len": room, "tokens": ids, "token_strs": strings})


@router.post("/detokenize", response_model=Detokenized, responses=FAILURES)
async def detokenize(body: DetokenizeRequest, front: FrontOf) -> Response:
    """The text of token ids."""
    front.check_model(body.model)
    text = await front.compute(len(body.tokens), lambda: front.tokenizer.decode(body.tokens, body.skip_special_tokens))
    return JSONResponse({"prompt": text})


@router.post("/apply-template", response_model=Detokenized, responses=FAILURES)
async def apply_template(body: TemplateRequest, front: FrontOf) -> Response:
    """The text that the chat template makes of a conversation."""
    front.check_model(body.model)
    tools = [tool.model_dump(exclude_unset=True) for tool in body.tools or ()]
    text, _ = await render(front, body.messages, tools, generation_prompt=body.add_generation_prompt)
    return JSONResponse({"prompt": text})
