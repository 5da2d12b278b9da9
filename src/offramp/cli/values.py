"""Flag values that are more than a word: lists, pairs, numbers that may be `none`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")

LAYERS = re.compile(r"\d+(,\d+)*")


def exit_layers(text: str) -> list[int] | str:
    """`10,20` -> layers; `none` -> no exits; anything else is the folder of an exit pack."""
    if text == "none":
        return []
    return [int(layer) for layer in text.split(",")] if LAYERS.fullmatch(text) else text


def threshold(text: str) -> float | dict[int, float]:
    """`0.9` for all exits, or `10=0.8,20=0.9` for some."""
    if "=" not in text:
        return _number(float, text)
    pairs = [pair(part, int, float) for part in text.split(",")]
    return dict(pairs)


def token_bias(text: str) -> tuple[int, float]:
    """`ID=BIAS`."""
    return pair(text, int, float)


def option(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; the value is read as JSON where it is JSON."""
    return pair(text, str, _json_or_text)


def optional_int(text: str) -> int | None:
    """A whole number or `none`."""
    return None if text == "none" else _number(int, text)


def token_count(text: str) -> int:
    """A whole number; `200k` and `2M` are thousands and millions."""
    scale = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower())
    number = _number(float, text[:-1]) * scale if scale else _number(int, text)
    return round(number)


def length(text: str) -> int:
    """A number of tokens: a whole number; `32k` is 32000 and `32K` is 32768, as vLLM has it."""
    scale = {"k": 1000, "K": 1024}.get(text[-1:])
    return _number(int, text[:-1]) * scale if scale else _number(int, text)


def size(text: str) -> int:
    """Bytes: a whole number; `512M` and `1.5G` are binary megabytes and gigabytes."""
    scale = {"k": 2**10, "m": 2**20, "g": 2**30}.get(text[-1:].lower())
    number = round(_number(float, text[:-1]) * scale) if scale else _number(int, text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no size")
    return number


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or a file that has one."""
    where = "it"
    if not text.lstrip().startswith("{"):
        where = f"`{text}`"
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"`{text}` is neither a JSON object nor a file: {error}") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{where} is not a JSON object")
    return value


def pair(text: str, left: Callable[[str], A], right: Callable[[str], B]) -> tuple[A, B]:
    """`A=B`, each side read by its own reader."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"`{text}` is not of the form `A=B`")
    return _number(left, name), _number(right, value)


def _number(read: Callable[[str], A], text: str) -> A:
    try:
        return read(text.strip())
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        raise argparse.ArgumentTypeError(f"`{text}` is not {kind}") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
