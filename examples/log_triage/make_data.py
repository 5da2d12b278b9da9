"""Write lines of logs, each with the JSON that says what it means: `train.jsonl`, `valid.jsonl`, `test.jsonl`.

    python -m examples.log_triage.make_data --out log-triage

A line is {"prompt": "<line of a log>\\nJSON:", "completion": " {...}"}. Validation and test have wordings and words
that training has never seen.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from examples.log_triage.kinds import KINDS, Kind
from examples.log_triage.surroundings import surround
from examples.log_triage.values import VALUES
from examples.log_triage.words import part

MARK = "\nJSON:"
"""What a prompt ends with."""

SIZES = {"train": 20_000, "valid": 1_500, "test": 500}

PLACEHOLDER = re.compile(r"\{(\w+)\}")


def records(split: str, seed: int) -> Iterator[dict[str, str]]:
    """The records of a set, without end. A record depends on its set, the seed and its number, and on nothing else."""
    held_out, number = split != "train", 0
    while True:
        random = Random(f"{seed}/{split}/{number}")
        kind = random.choice(KINDS)
        wording = random.choice(part(kind.wordings, held_out))
        yield record(kind, wording, random, held_out)
        number += 1


def record(kind: Kind, wording: str, random: Random, held_out: bool) -> dict[str, str]:
    """A record of a kind in a wording of it, in surroundings that do not change the answer."""
    line, values = write_line(surround(wording, random, held_out), random, held_out)
    return {"prompt": line + MARK, "completion": " " + json.dumps(answer(kind, values), separators=(",", ":"))}


def write_line(wording: str, random: Random, held_out: bool) -> tuple[str, dict[str, str]]:
    """A line of a log, and the values by their placeholders. A placeholder has one value, unless it is a number."""
    values: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values or name == "n":
            values[name] = VALUES[name](random, held_out)
        return values[name]

    return PLACEHOLDER.sub(value, wording), values


def answer(kind: Kind, values: dict[str, str]) -> dict[str, str | None]:
    """What a line means."""
    return {
        "category": kind.category,
        "action": kind.action,
        "outcome": kind.outcome,
        "severity": kind.severity,
        "user": values.get("user"),
        "address": values.get("address"),
        "object": values.get(kind.object),
        "summary": kind.summary.format_map(values),
        "advice": kind.advice,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Lines of logs, and what they mean.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other seeds, other lines (default: 0)")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, metavar="N", help=f"records (default: {size})")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        lines = [json.dumps(record) + "\n" for record in islice(records(split, args.seed), getattr(args, split))]
        (args.out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
