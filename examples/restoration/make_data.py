"""Write passages as somebody typed them in haste, each with what was meant: `train.jsonl`, `valid.jsonl`, `test.jsonl`.

    python -m examples.restoration.make_data --packages DIR --out restoration

A line is {"source": "as somebdy typd them", "target": "As somebody typed them."}. Training has every passage in
`--versions` versions, spoilt each time anew; validation and test are of documents that training never sees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from examples.restoration.noise import spoil
from examples.restoration.texts import Document, documents, passages

VERSIONS, HELD_OUT = 8, 2000


def records(found: Sequence[Document], split: str, versions: int, seed: int) -> Iterator[dict[str, str]]:
    """The records of a set, in an order of its own. What is spoilt how depends on the passage, its version and the
    seed, and on nothing else."""
    whole = [passage for document in found if document.split == split for passage in passages(document)]
    whole = sorted(set(whole))
    Random(f"{seed}/{split}").shuffle(whole)
    for version in range(versions):
        for passage in whole:
            yield {"source": spoil(passage, Random(f"{seed}/{version}/{passage}")), "target": passage}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Passages to restore.")
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR", help="where the three packages are")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is spoilt how (default: 0)")
    about = f"of each passage in training (default: {VERSIONS})"
    parser.add_argument("--versions", type=int, default=VERSIONS, metavar="N", help=about)
    about = f"records to validate with, and to test with (default: {HELD_OUT})"
    parser.add_argument("--held-out", type=int, default=HELD_OUT, metavar="N", help=about)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = list(documents(args.packages))
    for split in ("train", "valid", "test"):
        versions, most = (args.versions, None) if split == "train" else (1, args.held_out)
        with (args.out / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for record in islice(records(found, split, versions, args.seed), most):
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
