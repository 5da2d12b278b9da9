"""Text of a growing sequence of tokens, emitted as soon as it is certain."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import islice

from offramp.tokenizer.tokenizer import Tokenizer

LONGEST = 16
"""Tokens of the text before that are looked at, those that are skipped aside."""


class Detokenizer:
    """Turns tokens into text one at a time, in constant time per token.

    What `push` returned, joined, followed by `finish()`, equals `tokenizer.decode` of all the tokens; where they go on
    from others, `after`, it is what the text of both has more than theirs: a first word keeps its space. No half
    character is ever emitted:

    * byte-level vocabularies: an incremental UTF-8 decoder over the tokens' bytes keeps what is incomplete;
    * others: a token is decoded after the one before it, and what the two have more than that one alone is new (the
      prefix offset of Text Generation Inference). Runs of byte-fallback tokens wait for their end, because one
      invalid byte changes how the whole run is decoded.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._window = self._context(after)
        self._shown = self._decode()

    def _context(self, after: Sequence[int]) -> list[int]:
        """What of `after` has a say in the text that follows: the last token, or the last character in bytes."""
        unseen = self._tokenizer.special_token_ids if self._skip else frozenset()
        seen = (t for t in reversed(after) if t not in unseen and self._tokenizer.piece(t) is not None)
        known = [] if self._tokenizer.is_byte_level else [*islice(seen, LONGEST)][::-1]
        start = len(known) - 1
        while start > 0 and self._tokenizer.is_byte(known[start]):
            start -= 1
        window = list(known[max(start, 0) :])
        return [] if self._tokenizer.decode(window).endswith("\ufffd") else window

    def push(self, token: int) -> str:
        """The text that `token` makes certain; often its own, sometimes none."""
        if self._skip and token in self._tokenizer.special_token_ids:
            return ""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(self._tokenizer.token_bytes(token))
        if self._tokenizer.piece(token) is None:
            return ""
        self._window.append(token)
        if self._tokenizer.is_byte(token):
            return ""
        new = self._unshown()
        self._window = [token]
        self._shown = self._decode()
        return new

    def finish(self) -> str:
        """What was still held back; call once, after the last token."""
        return self._utf8.decode(b"", final=True) if self._tokenizer.is_byte_level else self._unshown()

    def _unshown(self) -> str:
        return self._decode()[len(self._shown) :]

    def _decode(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=self._skip)
