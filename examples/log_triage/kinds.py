"""Kinds of events and the words that programs have for them, from `kinds.txt`.

An entry there has a line with category, action, outcome, severity, and the placeholder that is the object, if one is; a
line each for summary and advice; and then lines of logs that mean it. Every fourth of these is held out.

`{user}`, `{address}` and what stands for the object (`{path}`, `{unit}`, ...) are what an answer repeats; `{pid}`,
`{port}`, `{n}`, `{hex}` and `{version}` are numbers that it does not care about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of event.

    Args:
        category, action, outcome, severity: what the answer says of all such events.
        object: the placeholder that is the answer's object; none if empty.
        summary: a sentence, with placeholders.
        advice: what to do about it.
        wordings: lines that mean it, with placeholders.
    """

    category: str
    action: str
    outcome: str
    severity: str
    object: str
    summary: str
    advice: str
    wordings: tuple[str, ...]


def read_kind(entry: str) -> Kind:
    """A kind as `kinds.txt` has it."""
    head, summary, advice, *wordings = entry.strip().splitlines()
    category, action, outcome, severity, *rest = head.split()
    return Kind(category, action, outcome, severity, "".join(rest), summary, advice, tuple(wordings))


KINDS = [read_kind(entry) for entry in Path(__file__).with_name("kinds.txt").read_text(encoding="utf-8").split("\n\n")]
