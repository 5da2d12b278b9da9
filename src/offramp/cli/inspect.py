"""`offramp inspect`: where a model can be left early, and what that costs on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from offramp.cli import flags
from offramp.cli.terminal import print_json, print_table

TAKES = "[MODEL]"

EXAMPLES = (
    "offramp inspect smollm2-135m",
    "offramp inspect smollm2-135m --exits 10,20 --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, with which exits."""
    flags.add_model_flags(parser, positional=True)


def run(args: argparse.Namespace) -> int:
    """Load the model, measure its steps, print the tables."""
    with flags.open_llm(args) as llm:
        facts = {"model": args.model, **llm.inspect()}
    if args.json:
        print_json(facts)
        return 0
    plain = [(name.replace("_", " "), _text(value)) for name, value in facts.items() if not _is_table(value)]
    print_table("model", ("", ""), plain)
    costs = [
        *((f"run segment {s['segment']}", f"{s['layers'][0]}-{s['layers'][1]}", *_times(s)) for s in facts["segments"]),
        *((f"check {'exit' if c['exit'] else 'top'}", str(c["at"]), *_times(c)) for c in facts["checks"]),
        *(("fill from", str(f["from"]), *_times(f)) for f in facts["fills"]),
    ]
    print_table("what a call costs", ("call", "layers", "1 row", "8 rows"), costs)
    if sources := facts.get("sources"):
        rows = [(str(source["tokens"]), f"{source['seconds'] * 1e3:.2f} ms") for source in sources]
        print_table("what encoding a source costs", ("tokens", "time"), rows)
    return 0


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(row, dict) for row in value)


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _times(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['seconds_1_row'] * 1e3:.2f} ms", f"{row['seconds_8_rows'] * 1e3:.2f} ms"
