"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from offramp.serve.protocol import LogProbs, Piece
from offramp.tokenizer import Tokenizer


class LikelyToken(BaseModel):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogProb(LikelyToken):
    """A token of the output, and the likeliest at its place."""

    top_logprobs: list[LikelyToken]


class ChatLogProbs(BaseModel):
    """For each token of a chat completion."""

    content: list[TokenLogProb] | None
    refusal: None = None


class CompletionLogProbs(BaseModel):
    """For each token of a completion; the first token of an echoed prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def token_text(token: int, tokenizer: Tokenizer) -> str:
    """A token's text; one that is no whole character is written as its bytes, as OpenAI has it."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(piece: Piece, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """`ChatLogProbs` of a piece; None where none were asked for."""
    if piece.logprobs is None:
        return None
    content = []
    for (own, value), *likely in piece.logprobs:
        said = _likely(own, value, tokenizer)
        content.append({**said, "top_logprobs": [_likely(token, each, tokenizer) for token, each in likely]})
    return {"content": content, "refusal": None}


def _likely(token: int, value: float, tokenizer: Tokenizer) -> dict[str, Any]:
    raw = tokenizer.token_bytes(token)
    return {"token": token_text(token, tokenizer), "logprob": value, "bytes": list(raw)}


class CompletionForm:
    """Writes the log-probabilities of one completion; knows how long its text is so far."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, tokens: Sequence[int], logprobs: Sequence[LogProbs]) -> dict[str, Any]:
        """`CompletionLogProbs` of tokens; an entry that is empty says nothing about its token."""
        form: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, entry in zip(tokens, logprobs, strict=True):
            form["tokens"].append(token_text(token, self._tokenizer))
            form["token_logprobs"].append(entry[0][1] if entry else None)
            form["top_logprobs"].append(self._top(entry))
            form["text_offset"].append(self._offset)
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token)))
        return form

    def _top(self, entry: LogProbs) -> dict[str, float] | None:
        """The likeliest, and the token itself. Of tokens with the same text the likeliest counts."""
        if not entry:
            return None
        top: dict[str, float] = {}
        for token, value in (*entry[1:], entry[0]):
            top.setdefault(token_text(token, self._tokenizer), value)
        return top


def joined(forms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The log-probabilities of pieces that follow each other."""
    return {name: [value for form in forms for value in form[name]] for name in CompletionLogProbs.model_fields}
