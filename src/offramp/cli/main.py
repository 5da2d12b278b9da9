"""`offramp COMMAND ...`: finds the command, and turns what goes wrong into one line and an exit code.

Exit codes: 0 success, 1 an error the user can act on (or a bug), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from offramp._version import __version__
from offramp.cli.parser import EXIT_USAGE, CommandParser, command_parser
from offramp.cli.terminal import print_error
from offramp.errors import OfframpError, did_you_mean

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

COMMANDS = {
    "generate": "generate text for prompts",
    "chat": "talk with a model",
    "serve": "serve a model over HTTP, with OpenAI's API",
    "pull": "download a model",
    "inspect": "show a model's exits and what they cost",
    "tune": "train exits for a model and write them as an exit pack",
    "calibrate": "set an exit pack's thresholds for given risks",
    "eval": "show what exits cost in quality and save in time",
    "bench": "measure this engine beside others, or what exits save",
    "bench paper": "repeat the paper's experiment, and measure each change of it",
    "bench serve": "put load on a server with OpenAI's API and measure it",
    "bench servers": "measure this server beside others",
    "doctor": "show what offramp finds on this machine",
}

EPILOG = """examples:
  offramp generate "Explain gravity to a child." --exit lossless
  offramp chat

`offramp COMMAND --help` explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone. Python flushes stdout once more at exit: give that flush somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OfframpError as error:
        if debug:
            traceback.print_exc()
        print_error(error.message, error.hint)
        return EXIT_ERROR
    except OSError as error:
        # A file that is not there, a folder that cannot be written, a full disk: no bug of ours.
        if debug:
            traceback.print_exc()
        print_error(f"`{error.filename}`: {error.strerror}" if error.filename else str(error), None)
        return EXIT_ERROR
    except Exception as error:
        if debug:
            traceback.print_exc()
        print_error(
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug in offramp: please report it with the traceback that `--debug` prints",
        )
        return EXIT_ERROR


def _dispatch(words: list[str]) -> int:
    for size in (2, 1):
        name = " ".join(words[:size])
        if name in COMMANDS:
            module = import_module(f"offramp.cli.{name.replace(' ', '_')}")
            parser = command_parser(name, module.TAKES, COMMANDS[name], module.EXAMPLES)
            module.add_arguments(parser)
            code: int = module.run(parser.parse(words[size:]))
            return code
    parser = _top_parser()
    if words and not words[0].startswith("-"):
        parser.error(f"unknown command `{words[0]}`", did_you_mean(words[0], COMMANDS))
    parser.parse(words)
    parser.print_help(sys.stderr)
    return EXIT_USAGE


def _top_parser() -> CommandParser:
    listed = "\n".join(f"  {name:<14} {what}" for name, what in COMMANDS.items())
    parser = CommandParser(
        prog="offramp",
        usage="offramp COMMAND ...",
        description=f"Inference for early-exit language models.\n\ncommands:\n{listed}",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"offramp {__version__}")
    return parser
