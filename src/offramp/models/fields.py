"""Typed reads from a configuration mapping, with errors that name the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from offramp.errors import Unsupported, WeightsError


class Fields(NamedTuple):
    """A configuration mapping and what to call it in messages, e.g. `config.json`.

    A key that is absent or null gives the default; without a default it is an error.
    """

    values: Mapping[str, Any]
    source: str

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise WeightsError(f"`{key}` in {self.source} must be a whole number, not {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise WeightsError(f"`{key}` in {self.source} must be a number, not {value!r}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise WeightsError(f"`{key}` in {self.source} must be true or false, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise WeightsError(f"`{key}` in {self.source} must be a string, not {value!r}")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        """A token id or a list of them; empty if absent."""
        value = self.values.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(type(i) is int for i in ids):
            raise WeightsError(f"`{key}` in {self.source} must be a token id or a list of them, not {value!r}")
        return tuple(ids)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def refuse(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse keys that change the arithmetic; `neutral` lists the values of each that do not.

        Raises:
            Unsupported: a key with any other value.
        """
        for key, allowed in neutral.items():
            if self.has(key) and self.values[key] not in allowed:
                value = repr(self.values[key])
                shown = value if len(value) <= 60 else value[:57] + "..."
                raise Unsupported(f"`{key}` = {shown} in {self.source} is not supported")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise WeightsError(f"{self.source} has no `{key}`")
        return value


def end_tokens(config: Fields, generation: Fields) -> tuple[int, ...]:
    """The end-of-sequence ids of a configuration and a generation configuration, each once."""
    return tuple(dict.fromkeys(generation.token_ids("eos_token_id") + config.token_ids("eos_token_id")))
