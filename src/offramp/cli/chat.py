"""`offramp chat`: a conversation on a terminal, or one line per turn from a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING

from offramp.cli import flags
from offramp.cli.prompts import Message, as_messages
from offramp.cli.report import output_json, report_lines
from offramp.cli.terminal import TokenWriter, print_error, print_json, print_note
from offramp.errors import InvalidParameter, OfframpError, did_you_mean
from offramp.types.exits import ExitParams
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

if TYPE_CHECKING:
    from offramp import LLM

TAKES = ""

EXAMPLES = (
    "offramp chat --exit lossless",
    'echo "Name three rivers." | offramp chat --json',
)

COMMANDS = ("/exit", "/reset", "/quit")
HELP = "`/exit off|lossless|RISK` changes the exits, `/reset` forgets the conversation, `/quit` ends it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `generate` that make sense for a conversation."""
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    flags.add_model_flags(parser)
    flags.add_exit_flags(parser)
    flags.add_sampling_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Read lines and answer them until the input ends.

    On a terminal an error is shown and the conversation goes on, and Ctrl-C ends the answer that is being given. From a
    pipe both end the command.
    """
    sampling, dial = flags.sampling_params(args), flags.exit_dial(args)
    if sampling.n > 1:
        raise InvalidParameter(f"a chat has one answer per turn, `n` is {sampling.n}", param="n")
    interactive = sys.stdin.isatty()
    with flags.open_llm(args, max_num_seqs=1) as llm:
        chat = Chat(llm, sampling, dial, system=args.system, as_json=args.json)
        if interactive:
            print_note(HELP)
        for line in _lines(interactive):
            try:
                if not chat.take(line):
                    break
            except (OfframpError, KeyboardInterrupt) as error:
                if not interactive:
                    raise
                if isinstance(error, OfframpError):
                    print_error(error.message, error.hint)
    return 0


class Chat:
    """A conversation: what was said so far, and where the dial stands."""

    def __init__(
        self, llm: LLM, sampling: SamplingParams, dial: str | ExitParams, *, system: str | None, as_json: bool
    ) -> None:
        self.messages: list[Message] = []
        self.dial = dial
        self._llm, self._sampling, self._system, self._as_json = llm, sampling, system, as_json

    def take(self, line: str) -> bool:
        """Answer a line, or obey it if it starts with `/`; false when the conversation is over.

        Raises:
            InvalidParameter: an unknown `/` command.
            OfframpError: the turn cannot be answered; it is forgotten.
        """
        if not line.startswith("/"):
            self._answer(line)
            return True
        command, _, value = line.partition(" ")
        if command == "/exit":
            self.dial = value.strip() or self.dial
            print_note(f"exit: {self.dial}")
        elif command == "/reset":
            self.messages.clear()
            print_note("conversation forgotten")
        elif command != "/quit":
            raise InvalidParameter(f"unknown command `{command}`", hint=did_you_mean(command, COMMANDS))
        return command != "/quit"

    def _answer(self, text: str) -> None:
        turn = as_messages(text, None if self.messages else self._system)
        said, writer, start = "", TokenWriter(self._llm.spec.num_layers), perf_counter()
        output: Output | None = None
        try:
            for chunk in self._llm.stream_chat(self.messages + turn, self._sampling, self.dial):
                said, output = said + chunk.text, chunk.output or output
                if not self._as_json:
                    writer.write(chunk.text, chunk.exit_layers)
        finally:
            if not self._as_json:
                print(flush=True)
            if said or output is not None:
                self.messages += [*turn, {"role": "assistant", "content": said}]
        if output is not None:
            seconds = perf_counter() - start
            if self._as_json:
                print_json(output_json(output, seconds))
            for report in report_lines([output], seconds):
                print_note(report)


def _lines(interactive: bool) -> Iterator[str]:
    """Lines that say something."""
    if not interactive:
        yield from filter(None, map(str.strip, sys.stdin))
        return
    if find_spec("readline") is not None:
        import_module("readline")  # gives `input` line editing and a history
    with suppress(EOFError):
        while True:
            if line := input("> ").strip():
                yield line
