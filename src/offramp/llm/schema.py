"""JSON schemas as constraints: which tokens keep a text the beginning of one that satisfies a schema.

By llguidance, which this file alone imports, and only once somebody has a schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.engine.guide import Constraint
from offramp.errors import InvalidParameter, MissingDependency, Unsupported
from offramp.tokenizer import Tokenizer
from offramp.types.executor import ModelShape

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer
    from llguidance._lib import JsonCompileOptions

MOST_THREADS = 16

OPTIONS: JsonCompileOptions = {
    "lenient": False,
    "coerce_one_of": False,
    # Small models get lost in white space where any amount is allowed. These are llama.cpp's bounds.
    "whitespace_flexible": True,
    "whitespace_pattern": r" |\n{1,2}[ \t]{0,20}",
}
"""What a schema cannot change by `x-guidance`: no keyword of it is ignored or weakened."""


class SchemaConstraint(Constraint):
    """An `offramp.engine.guide.Constraint` to a schema.

    Every method raises ValueError, with llguidance's reason, where it does not go on: a token that is not allowed, or a
    limit that is reached.
    """

    def __init__(self, matcher: LLMatcher, workshop: Workshop) -> None:
        self._matcher, self._workshop = matcher, workshop

    def allowed(self) -> bytes:
        """The mask of the tokens that may come next; only end-of-sequence once nothing more may be said."""
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def allowed_beside(self, others: Sequence[SchemaConstraint]) -> list[bytes | Exception]:
        """`allowed` of this one and of others, which threads share."""
        if not others:
            return super().allowed_beside(others)
        matchers = [self._matcher, *(other._matcher for other in others)]
        masks = np.zeros((len(matchers), self._workshop.mask_bytes), np.uint8)
        numbered = [(matcher, number) for number, matcher in enumerate(matchers)]
        self._workshop.threads.unsafe_compute_mask_ptr(numbered, masks.ctypes.data, masks.shape[1], len(masks))
        failures = [_failure(matcher) for matcher in matchers]
        return [failure or mask.tobytes() for failure, mask in zip(failures, masks, strict=True)]

    def push(self, token: int) -> None:
        """Take a token that was allowed."""
        self._matcher.consume_token(token)
        self._check()

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens."""
        self._matcher.rollback(count)
        self._check()

    def copy(self) -> SchemaConstraint:
        """Another one that has come as far."""
        return SchemaConstraint(self._matcher.deep_copy(), self._workshop)

    def _check(self) -> None:
        if failure := _failure(self._matcher):
            raise failure


def _failure(matcher: LLMatcher) -> ValueError | None:
    return ValueError(matcher.get_error().splitlines()[0]) if matcher.is_error() else None


@dataclass(frozen=True)
class Workshop:
    """What the constraints of a model share: the vocabulary, the size of its masks, and threads that compute them."""

    vocabulary: LLTokenizer
    mask_bytes: int
    threads: LLExecutor


class SchemaCompiler:
    """Makes constraints for one model, whose vocabulary is read when the first schema comes: part of a second."""

    def __init__(self, tokenizer: Tokenizer, shape: ModelShape) -> None:
        self._tokenizer, self._shape = tokenizer, shape

    def prepare(self) -> None:
        """Read the vocabulary now, if there can be schemas at all."""
        if self._shape.eos_token_ids and find_spec("llguidance") is not None:
            self.constraints({}, 1)

    def constraints(self, schema: Mapping[str, Any], count: int) -> list[SchemaConstraint]:
        """Equal constraints to the schema of sampling parameters, for `count` outputs; {} is any JSON object.

        Raises:
            InvalidParameter: a schema that uses what llguidance does not know, is too large once compiled, or that
                nothing satisfies.
            Unsupported: the model has no end-of-sequence token.
            MissingDependency: llguidance is not installed.
        """
        if not self._shape.eos_token_ids:
            raise Unsupported("the model has no end-of-sequence token, so no output can end where `json_schema` says")
        text = json.dumps(schema or {"type": "object"})
        matcher_type, limits = _matcher_and_limits()
        try:
            grammar = matcher_type.grammar_from_json_schema(text, overrides=OPTIONS)
            workshop = self._workshop
            matcher = matcher_type(workshop.vocabulary, grammar, log_level=0, limits=limits)
            first = SchemaConstraint(matcher, workshop)
            first.allowed()
        except ValueError as error:
            raise InvalidParameter(
                f"`json_schema` cannot be used: {error}",
                param="json_schema",
                hint="the keywords that can be used: "
                "https://github.com/microsoft/llguidance/blob/main/docs/json_schema.md",
            ) from error
        return [first.copy() for _ in range(count)]

    @cached_property
    def _workshop(self) -> Workshop:
        from llguidance import LLExecutor, LLTokenizer, TokenizerWrapper

        spelling = Spelling(self._tokenizer, self._shape)
        ends = list(self._shape.eos_token_ids)
        vocabulary = LLTokenizer(TokenizerWrapper(spelling), eos_token=ends, slices=LLTokenizer.json_slices())
        spelling.vocabulary = vocabulary
        mask_bytes = 4 * -(-vocabulary.vocab_size // 32)
        return Workshop(vocabulary, mask_bytes, LLExecutor(num_threads=min(os.cpu_count() or 1, MOST_THREADS)))


class Spelling:
    """A model's vocabulary as llguidance wants it: the bytes of each token, and the tokens of text that must come."""

    def __init__(self, tokenizer: Tokenizer, shape: ModelShape) -> None:
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes(token) for token in range(shape.vocab_size)]
        self.eos_token_id, self.bos_token_id = shape.eos_token_ids[0], None
        special = tokenizer.special_token_ids | set(shape.eos_token_ids)
        self.special_token_ids = sorted(token for token in special if token < shape.vocab_size)
        self._plain = frozenset(range(shape.vocab_size)).difference(special)
        self.vocabulary: LLTokenizer | None = None

    def __call__(self, text: str) -> list[int]:
        """The tokens that the model itself would write `text` in.

        Some tokenizers put a space before a text, and all read the name of a special token as that token; such a text
        is put together from the longest tokens that fit.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if self._plain.issuperset(ids) and b"".join([self.tokens[token] for token in ids]) == text.encode():
            return ids
        assert self.vocabulary is not None, "asked for tokens before the vocabulary is there"
        return self.vocabulary.greedy_tokenize(text)


def _matcher_and_limits() -> tuple[type[LLMatcher], LLParserLimits]:
    """llguidance, and what a schema may cost: compiling it takes at most a good second, a mask some 10 ms, its memory
    some 10 MB."""
    try:
        from llguidance import LLMatcher, LLParserLimits
    except ImportError:
        raise MissingDependency(
            "`json_schema` needs llguidance, which is not installed", hint="pip install 'offramp[server]'"
        ) from None
    limits = LLParserLimits(
        max_grammar_size=10_000,
        initial_lexer_fuel=200_000,
        step_max_items=10_000,
        max_lexer_states=20_000,
        verbose_errors=False,
    )
    return LLMatcher, limits
