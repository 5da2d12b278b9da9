"""`offramp generate`: text for one prompt as it comes, or for many prompts in a batch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten
from time import perf_counter
from typing import TYPE_CHECKING, Any

from offramp.cli import flags
from offramp.cli.progress import on_batch, show_progress
from offramp.cli.prompts import Prompt, as_messages, read_prompts
from offramp.cli.replay import ReplayedTrace
from offramp.cli.report import output_json, report_lines
from offramp.cli.terminal import TokenWriter, print_error, print_json, print_note
from offramp.errors import InvalidParameter, TokenizerError
from offramp.types.output import Chunk, Output
from offramp.types.sampling import SamplingParams

if TYPE_CHECKING:
    from offramp import LLM

TAKES = "[PROMPT ...]"

EXAMPLES = (
    'offramp generate "Explain gravity to a child." --max-tokens 64 --exit lossless',
    "offramp generate --prompts prompts.txt --exits 20,25 --threshold 0.8 --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to generate from, and every flag there is."""
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="text to go on from; `-` reads standard input")
    parser.add_argument("--prompts", dest="file", type=Path, metavar="FILE", help="prompts: text lines, or `.jsonl`")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--chat", action="store_true", help="use the chat template (default: if the model has one)")
    form.add_argument("--raw", action="store_true", help="continue the prompt as it is")
    flags.add_model_flags(parser)
    flags.add_exit_flags(parser)
    flags.add_sampling_flags(parser)
    flags.add_engine_flags(parser)
    trace = parser.add_argument_group("traces")
    trace.add_argument("--record-trace", type=Path, metavar="FILE", help="write where each token left, as JSON lines")
    trace.add_argument("--replay-trace", type=Path, metavar="FILE", help="leave where a recorded trace left")


def run(args: argparse.Namespace) -> int:
    """Generate, print, report."""
    prompts = read_prompts(args.prompts, args.file)
    sampling, dial = flags.sampling_params(args), flags.exit_dial(args)
    if sampling.logprobs is not None and not args.json:
        raise InvalidParameter("`--logprobs` are only in the JSON", param="logprobs", hint="add `--json`")
    more: dict[str, Any] = {"trace": args.record_trace}
    replay = ReplayedTrace.read(args.replay_trace, dial, len(prompts), sampling.n) if args.replay_trace else None
    if replay is not None:
        # The switch would turn off what is to be repeated. The trace's exits serve unless others are asked for.
        more["profitability"] = False
        if "exits" not in args:
            more["exits"] = replay.exits
    with flags.open_llm(args, **more) as llm:
        if replay is not None:
            replay.check(llm.inspect()["exits"], llm.spec.num_layers)
        exits: list[Any] = [dial] * len(prompts) if replay is None else replay.params
        asked = _in_form(args, llm, prompts)
        if len(asked) == 1 and sampling.n == 1 and not args.json:
            outputs = _stream(llm, asked[0], sampling, exits[0])
        else:
            outputs = _batch(llm, asked, sampling, exits, args.json)
    return _verdict(outputs)


def _verdict(outputs: list[Output]) -> int:
    failed = sum(output.finish_reason == "error" for output in outputs)
    if failed:
        print_error(
            f"{failed} of {len(outputs)} outputs broke off: the model gave no finite number, or no token was allowed",
            "check the weights, `--logit-bias`, `--stop-token-id` and `--json-schema`",
        )
    return 1 if failed else 0


def _in_form(args: argparse.Namespace, llm: LLM, prompts: list[Prompt]) -> list[Prompt]:
    """The prompts as text, or as conversations where the chat template is to be used."""
    conversations = any(not isinstance(prompt, str) for prompt in prompts)
    if args.raw:
        if conversations or args.system is not None:
            raise InvalidParameter("`--raw` has no conversation and no system message", param="raw")
        return prompts
    if not (args.chat or conversations or args.system is not None):
        if llm.has_encoder:
            return prompts
        try:
            _ = llm.tokenizer.chat_template
        except TokenizerError as error:
            print_note(f"note: {error.message}; continuing the prompt as it is")
            return prompts
    return [as_messages(prompt, args.system) for prompt in prompts]


def _stream(llm: LLM, prompt: Prompt, sampling: SamplingParams, exit: Any) -> list[Output]:
    writer, start = TokenWriter(llm.spec.num_layers), perf_counter()
    stream: Callable[..., Iterator[Chunk]] = llm.stream if isinstance(prompt, str) else llm.stream_chat
    outputs: list[Output] = []
    try:
        for chunk in stream(prompt, sampling, exit):
            writer.write(chunk.text, chunk.exit_layers)
            outputs += [chunk.output] if chunk.output else []
    finally:
        print(flush=True)
    _print_report(outputs, perf_counter() - start)
    return outputs


def _batch(llm: LLM, prompts: list[Prompt], sampling: SamplingParams, exits: list[Any], as_json: bool) -> list[Output]:
    start = perf_counter()
    generate: Callable[..., Any] = llm.generate if isinstance(prompts[0], str) else llm.chat
    with show_progress() as update:
        results = generate(prompts, sampling, exits, on_progress=on_batch(update, llm.spec.num_layers))
    seconds = perf_counter() - start
    outputs = [output for result in results for output in (result, *result.alternatives)]
    if as_json:
        shown = [output_json(output, seconds) for output in outputs]
        print_json(shown if len(shown) > 1 else shown[0])
    else:
        for number, output in enumerate(outputs):
            print(f"==> {_title(prompts[number // sampling.n])} <==\n{output.text}\n")
    _print_report(outputs, seconds)
    return outputs


def _title(prompt: Prompt) -> str:
    """The first line of a prompt, shortened."""
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))
    return shorten(text.strip().partition("\n")[0], 72, placeholder="...")


def _print_report(outputs: list[Output], seconds: float) -> None:
    for line in report_lines(outputs, seconds):
        print_note(line)
