"""`offramp eval`: what each setting of the dial costs in quality and saves in time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli import flags
from offramp.cli.progress import on_download, show_progress
from offramp.cli.terminal import print_json, print_note

if TYPE_CHECKING:
    from offramp.evaluate.results import EvalReport

TAKES = "[MODEL] --exits PACK --settings off,lossless,RISK --data SET|FILE"

EXAMPLES = (
    "offramp eval smollm2-135m --exits my-pack --settings lossless,0.02,0.05 --data mtbench,gsm8k --out report",
    "offramp eval --exits 20,26 --settings lossless --data prompts.txt --prompts 20 --max-tokens 64",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which settings, on which prompts."""
    flags.add_model_flags(parser, positional=True)
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--data",
        type=_words,
        default=["mtbench"],
        metavar="SET|FILE,...",
        help="mtbench, gsm8k, hellaswag, truthfulqa, or files of prompts (default: mtbench)",
    )
    group.add_argument("--prompts", type=int, metavar="N", help="prompts of each set or file, at most (default: all)")
    group.add_argument("--out", type=Path, metavar="DIR", help="write `eval.json` and the report `eval.html` here")

    def add(flag: str, read: Any, metavar: str, help: str) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS)

    add("--settings", _words, "DIAL,...", "settings beside off: lossless, or risks (default: lossless)")
    add("--max-tokens", int, "N", "most tokens to generate for a prompt (default: 256)")
    add("--batch", int, "N", "prompts generated together (default: 8)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the report. Exits stay on even where they do not pay."""
    from offramp.evaluate.page import page
    from offramp.evaluate.run import EvalOptions, evaluate
    from offramp.evaluate.tasks import read_cases
    from offramp.types.checks import check_integer

    if args.prompts is not None:
        check_integer("prompts", args.prompts, 1)
    given = {name: getattr(args, name) for name in ("settings", "max_tokens", "batch") if hasattr(args, name)}
    options = EvalOptions(**given)
    with flags.open_llm(args, profitability=False, prefix_caching=False) as llm, show_progress() as update:
        cases = read_cases(args.data, llm.tokenizer, args.prompts, on_download(update))
        report = evaluate(llm, cases, options, update)
        update(1, 1, "done")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "eval.json").write_text(json.dumps(report.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
        (args.out / "eval.html").write_text(page(report), encoding="utf-8")
        print_note(f"written to {args.out}")
    if args.json:
        print_json(report.to_dict())
    else:
        _show(report)
    return 0


def _show(report: EvalReport) -> None:
    from offramp.evaluate.page import tables

    sets = ", ".join(f"{count} of {name}" for name, count in report.prompts.items())
    print(f"{sets}; below each value its 95% interval over prompts")
    for title, heads, rows in tables(report):
        lines: list[tuple[str, ...]] = [(title, *heads)]
        for name, cells in rows:
            lines += [(name, *(value for value, _ in cells)), ("", *(interval for _, interval in cells))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        print()


def _words(text: str) -> tuple[str, ...]:
    """`a,b`."""
    return tuple(text.split(","))
