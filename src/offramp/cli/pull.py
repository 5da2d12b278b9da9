"""`offramp pull`: fetch a model before it is needed."""

from __future__ import annotations

import argparse

from offramp.cli.flags import DEFAULT_MODEL
from offramp.cli.progress import on_download, show_progress
from offramp.cli.terminal import print_json

TAKES = "[MODEL]"

EXAMPLES = (
    "offramp pull",
    "OFFRAMP_CACHE=/data/models offramp pull smollm2-135m",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to fetch."""
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"an alias or a Hugging Face id (default: {DEFAULT_MODEL})",
    )


def run(args: argparse.Namespace) -> int:
    """Download what is not here and print where it lies."""
    from offramp.models import resolve

    with show_progress() as update:
        files = resolve(args.model, on_download(update))
    if args.json:
        print_json({"model": files.name, "form": files.form, "path": str(files.path)})
    else:
        print(files.path)
    return 0
