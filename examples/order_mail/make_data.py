"""Write mails that order something, each with the JSON it stands for: `train.jsonl`, `valid.jsonl`, `test.jsonl`.

    python -m examples.order_mail.make_data --out order-mail

A line is {"prompt": "<mail>\\nJSON:", "completion": " {...}"}. The sets of validation and test are made of phrases and
values that training has never seen; most values of training are words invented on the spot.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from examples.order_mail.mail import write_mail
from examples.order_mail.orders import draw_order

MARK = "\nJSON:"
"""What a prompt ends with."""

SIZES = {"train": 20_000, "valid": 1_500, "test": 500}


def records(split: str, seed: int) -> Iterator[dict[str, str]]:
    """The records of a set, without end. A record depends on its set, the seed and its number, and on nothing else."""
    held_out, number = split != "train", 0
    while True:
        random = Random(f"{seed}/{split}/{number}")
        order = draw_order(random, held_out)
        yield {"prompt": write_mail(order, random, held_out) + MARK, "completion": order.completion}
        number += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Mails that order something, and the JSON they stand for.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other seeds, other mails (default: 0)")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, metavar="N", help=f"records (default: {size})")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        lines = [
            json.dumps(r, ensure_ascii=False) + "\n" for r in islice(records(split, args.seed), getattr(args, split))
        ]
        (args.out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
