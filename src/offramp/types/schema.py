"""What any JSON schema must be, before anybody reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from offramp.errors import InvalidParameter

MAX_BYTES = 2**16
MAX_DEPTH = 100
"""Levels of objects and arrays. Readers that call themselves for each give up not far beyond."""


def check_schema(schema: object) -> dict[str, Any]:
    """`schema` as a dictionary.

    Raises:
        InvalidParameter: not a JSON object, larger than `MAX_BYTES` as JSON, or deeper than `MAX_DEPTH`.
    """
    if not isinstance(schema, Mapping):
        raise InvalidParameter(f"`json_schema` must be a JSON object, not {schema!r}", param="json_schema")
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inner(value)]
    if level:
        raise InvalidParameter(
            f"`json_schema` is nested too deeply, at most {MAX_DEPTH} levels are allowed", param="json_schema"
        )
    try:
        size = len(json.dumps(dict(schema), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"`json_schema` is not JSON: {error}", param="json_schema") from error
    if size > MAX_BYTES:
        raise InvalidParameter(f"`json_schema` has {size} bytes, at most {MAX_BYTES} are allowed", param="json_schema")
    return dict(schema)


def _inner(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []
