"""Writing to a terminal: errors, notes, and tokens coloured by the depth they left at.

rich is imported only where the stream is a terminal. It honours `NO_COLOR`; colour never says anything alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

SHALLOW, DEEP = (80, 220, 120), (235, 180, 70)
"""Colours (red, green, blue) of tokens that left lowest and just below the top; the top has none."""


def console(stream: TextIO) -> Console:
    """A rich console that changes nothing about the text but its colour."""
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=True, emoji=False, markup=False)


def print_error(message: str, hint: str | None) -> None:
    """`error: ...` and, on a line of its own, `hint: ...`, to stderr."""
    _labelled("error", message, "bold red")
    if hint:
        _labelled("hint", hint, "cyan")


def print_note(text: str) -> None:
    """A line beside the output, to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document, on one line, to stdout."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table to stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.show_header = any(columns)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def depth_colour(layer: int, depth: int) -> str | None:
    """The colour of a token that left after `layer` of `depth` layers; None at the top."""
    if layer >= depth:
        return None
    share = layer / depth
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(SHALLOW, DEEP, strict=True))
    return f"rgb({red},{green},{blue})"


class TokenWriter:
    """Writes generated text to stdout as it comes, coloured on a terminal."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._console = console(sys.stdout) if sys.stdout.isatty() else None

    def write(self, text: str, exit_layers: tuple[int, ...]) -> None:
        """Write the text of tokens that left at `exit_layers`; several tokens get the colour of the last."""
        if self._console is None:
            print(text, end="", flush=True)
        elif text:
            colour = depth_colour(exit_layers[-1], self._depth) if exit_layers else None
            self._console.out(text, style=colour, end="", highlight=False)


def _labelled(label: str, text: str, style: str) -> None:
    if not sys.stderr.isatty():
        print(f"{label}: {text}", file=sys.stderr)
        return
    from rich.text import Text

    console(sys.stderr).print(Text.assemble((f"{label}:", style), f" {text}"))
