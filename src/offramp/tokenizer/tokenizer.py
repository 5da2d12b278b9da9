"""The tokenizer of one model, whichever file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from offramp.errors import InvalidParameter, TokenizerError
from offramp.tokenizer.pieces import byte_alphabet, is_byte_level, is_byte_piece, piece_bytes

if TYPE_CHECKING:
    import tokenizers

    from offramp.tokenizer.chat import ChatTemplate


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer` with its special tokens and chat template.

    Args:
        backend: the tokenizer proper.
        bos, eos: the special tokens as text, or None.
        add_bos, add_eos: put them around encoded text, for a backend whose post-processor does not.
        chat_template: Jinja source, or None.

    Raises:
        TokenizerError: `bos` or `eos` is not in the vocabulary.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos: str | None = None,
        eos: str | None = None,
        add_bos: bool = False,
        add_eos: bool = False,
        chat_template: str | None = None,
    ) -> None:
        self._backend = backend
        self.bos_token = bos
        self.eos_token = eos
        self.bos_token_id = self._id_of(bos)
        self.eos_token_id = self._id_of(eos)
        self.is_byte_level = is_byte_level(backend)
        self._prefix, self._suffix = self._around(add_bos, add_eos)
        self._alphabet = byte_alphabet()
        self._bytes: dict[int, bytes] = {}
        self._chat_template = chat_template

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's vocabulary may be padded beyond it."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def special_token_ids(self) -> frozenset[int]:
        """Tokens that `decode` leaves out."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token for token, content in added.items() if content.special)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        Special tokens written out in the text become their ids. Text from `apply_chat_template` already has its
        begin-of-sequence token: encode it with `add_special_tokens=False`.

        Raises:
            InvalidParameter: `text` is not a string, or is one that UTF-8 cannot represent.
        """
        if not isinstance(text, str):
            raise InvalidParameter(f"the text to encode must be a string, not {type(text).__name__}", param="text")
        try:
            ids = self._backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidParameter("the text to encode holds half of a surrogate pair", param="text") from error
        return [*self._prefix, *ids, *self._suffix] if add_special_tokens else list(ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids outside the vocabulary nothing."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary spells it, or None outside the vocabulary."""
        return self._backend.id_to_token(token)

    def is_byte(self, token: int) -> bool:
        """Whether the token stands for a single byte of a character the vocabulary lacks (byte fallback)."""
        return not self.is_byte_level and is_byte_piece(self.piece(token))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of text that the token stands for, leading space included; empty outside the vocabulary."""
        known = self._bytes.get(token)
        if known is None:
            piece = self.piece(token)
            known = b"" if piece is None else piece_bytes(piece, self._alphabet if self.is_byte_level else None)
            self._bytes[token] = known
        return known

    @property
    def has_chat_template(self) -> bool:
        """Whether the model comes with a chat template."""
        return self._chat_template is not None

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The compiled chat template.

        Raises:
            TokenizerError: there is none, or it is not valid Jinja.
        """
        if self._chat_template is None:
            raise TokenizerError(
                "the model has no chat template",
                hint="send a plain prompt, or add `chat_template.jinja` to the model's folder",
            )
        from offramp.tokenizer.chat import ChatTemplate

        return ChatTemplate(self._chat_template, bos_token=self.bos_token or "", eos_token=self.eos_token or "")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt for a chat, with the `tools` that may be called; encode it with `add_special_tokens=False`.

        Raises:
            InvalidParameter: messages of another form than {"role", "content"}, or that the template refuses.
            TokenizerError: no chat template, or a broken one.
        """
        return self.chat_template.render(messages, add_generation_prompt, tools)

    def _id_of(self, token: str | None) -> int | None:
        if token is None:
            return None
        found = self._backend.token_to_id(token)
        if found is None:
            raise TokenizerError(f"special token `{token}` is not in the vocabulary")
        return found

    def _around(self, add_bos: bool, add_eos: bool) -> tuple[list[int], list[int]]:
        """The ids put before and after a text."""
        sample = self._backend.encode("a", add_special_tokens=True)
        text_at = [i for i, special in enumerate(sample.special_tokens_mask) if not special] or [len(sample.ids)]
        prefix, suffix = sample.ids[: text_at[0]], sample.ids[text_at[-1] + 1 :]
        if add_bos and self.bos_token_id is not None:
            prefix = [self.bos_token_id]
        if add_eos and self.eos_token_id is not None:
            suffix = [self.eos_token_id]
        return prefix, suffix
