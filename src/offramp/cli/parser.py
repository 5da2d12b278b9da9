"""Argument parsing: grouped flags with their defaults, examples below, and near names for unknown flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from offramp.cli.terminal import print_error

EXIT_USAGE = 2


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line and a hint. Flags cannot be abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str, hint: str | None = None) -> NoReturn:
        """Print what is wrong and leave with exit code 2."""
        print_error(message, hint or f"`{self.prog} --help` lists what is allowed")
        sys.exit(EXIT_USAGE)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown flag is refused with the nearest one that exists."""
        parsed, extra = self.parse_known_args(words)
        if extra:
            unknown = extra[0].partition("=")[0]
            near = get_close_matches(unknown, self._option_string_actions, n=1)
            self.error(f"unknown argument `{unknown}`", f"did you mean `{near[0]}`?" if near else None)
        return parsed


def command_parser(name: str, takes: str, summary: str, examples: Sequence[str]) -> CommandParser:
    """The parser of one command, with the flags that every command has. `takes` names its arguments in the usage."""
    parser = CommandParser(
        prog=f"offramp {name}",
        usage=f"offramp {name} [OPTION ...] {takes}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
    )
    parser.add_argument("--json", action="store_true", help="print JSON to standard output, everything else to stderr")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser
