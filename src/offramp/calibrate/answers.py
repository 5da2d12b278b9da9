"""Right answers: when an output is one, and whether there is room for them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from offramp.errors import InvalidParameter
from offramp.tokenizer import Tokenizer


def same_answer(text: str, completion: str) -> bool:
    """Whether an output is the right completion, white space at both ends aside.

    Where the completion is a JSON object or list the output must be the same value and nothing besides: in which order
    its keys come and what space it has between them is free, but `1` and `1.0` are two values.
    """
    text, completion = text.strip(), completion.strip()
    if text == completion:
        return True
    value = _canonical(completion)
    return value is not None and _canonical(text) == value


def check_room(completions: Iterable[str], tokenizer: Tokenizer, max_tokens: int) -> None:
    """Check that the longest completion can be generated, with the token that ends it.

    Raises:
        InvalidParameter: it cannot.
    """
    ids = (tokenizer.encode(completion, add_special_tokens=False) for completion in completions)
    needed = 1 + max(map(len, ids), default=0)
    if needed > max_tokens:
        raise InvalidParameter(
            f"a completion takes {needed} tokens, and at most {max_tokens} are generated",
            param="max_tokens",
            hint=f"give `--max-tokens {needed}` or more",
        )


def _canonical(text: str) -> str | None:
    """A JSON object or list, the same text for the same value; None for other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else None
