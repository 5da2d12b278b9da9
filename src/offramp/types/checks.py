"""Checks of parameter values, with messages that say what is allowed."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from offramp.errors import InvalidParameter, did_you_mean

MAX_THREADS = 1024
"""Threads that an executor can be asked for."""

MAX_SIZE = 2**31 - 1
"""The largest block, and the most blocks, of a paged store."""


def known_fields(cls: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`values` as keyword arguments of dataclass `cls`.

    Raises:
        InvalidParameter: a name that `cls` does not have.
    """
    names = [f.name for f in fields(cls)]
    for name in values:
        if name not in names:
            raise InvalidParameter(f"unknown {what} `{name}`", param=str(name), hint=did_you_mean(str(name), names))
    return dict(values)


def check_number(name: str, value: object, low: float, high: float, *, low_open: bool = False) -> None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if ok:
        assert isinstance(value, int | float)
        ok = (low < value if low_open else low <= value) and value <= min(high, sys.float_info.max)
    if not ok:
        left = f"greater than {low:g}" if low_open else f"at least {low:g}"
        right = "" if math.isinf(high) else f" and at most {high:g}"
        raise InvalidParameter(f"`{name}` must be a number {left}{right}, not {value!r}", param=name)


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not ok or (high is not None and isinstance(value, int) and value > high):
        right = "" if high is None else f" and at most {high}"
        raise InvalidParameter(f"`{name}` must be a whole number of at least {low}{right}, not {value!r}", param=name)


def check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidParameter(f"`{name}` cannot be {value!r}", param=name, hint=did_you_mean(str(value), allowed))
