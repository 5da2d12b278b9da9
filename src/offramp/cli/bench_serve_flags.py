"""The flags of `offramp bench serve`: those of `vllm bench serve`, and why some of them are not here."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from offramp.cli import values

BACKENDS = ("openai", "openai-chat")

ABSENT = {
    ("--use-beam-search",): "tokens are drawn, or are the likeliest",
    ("--lora-modules", "--lora-assignment"): "every request names the same model",
    ("--profile",): "a server's profiler is the server's to start",
    (
        "--tokenizer-mode",
        "--trust-remote-code",
    ): "tokenizers are read as `tokenizer.json` or from a GGUF file, never run",
    ("--random-batch-size", "--no-reranker"): "embeddings and rankings are not measured",
    ("--no-stream", "--hf-subset", "--hf-split", "--hf-name", "--hf-output-len"): "data sets of a hub are not read; "
    "write their prompts to a file for `--dataset-name custom`",
    ("--spec-bench-output-len", "--spec-bench-category"): "give its prompts as `--dataset-name custom`",
    ("--sonnet-input-len", "--sonnet-output-len", "--sonnet-prefix-len"): "give its prompts as `--dataset-name custom`",
    (
        "--prefix-repetition-prefix-len",
        "--prefix-repetition-suffix-len",
        "--prefix-repetition-num-prefixes",
        "--prefix-repetition-output-len",
    ): "`--random-prefix-len` makes prompts that begin alike",
    ("--blazedit-min-distance", "--blazedit-max-distance"): "give its prompts as `--dataset-name custom`",
}
"""Flags of `vllm bench serve` that are refused, and what to say."""


class _Absent(argparse.Action):
    """A flag that is refused, with the reason."""

    def __init__(self, option_strings: Sequence[str], dest: str, reason: str = "", **more: Any) -> None:
        super().__init__(option_strings, dest, nargs="*", help=argparse.SUPPRESS, default=argparse.SUPPRESS)
        self._reason = reason

    def __call__(self, parser: Any, namespace: Any, given: Any, option: str | None = None) -> None:
        parser.error(f"`{option}` is not offered: {self._reason}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, what, how, and what is told."""
    _add_server(_Group(parser, "server"))
    _add_prompts(_Group(parser, "prompts"))
    _add_sampling(_Group(parser, "sampling and exits"))
    _add_load(_Group(parser, "load"))
    _add_results(_Group(parser, "results"))
    for names, reason in ABSENT.items():
        for name in names:
            parser.add_argument(name, action=_Absent, reason=reason)


class _Group:
    """A group of flags, with their defaults in the help."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        self._group = parser.add_argument_group(title)

    def add(
        self, flag: str, read: Callable[[str], Any], metavar: str | None, help: str, default: Any = None, **more: Any
    ) -> None:
        shown = help if default is None or "default" in help else f"{help} (default: {default})"
        self._group.add_argument(flag, type=read, metavar=metavar, help=shown, default=default, **more)

    def switch(self, flag: str, help: str) -> None:
        self._group.add_argument(flag, action="store_true", help=help)


def _add_server(group: _Group) -> None:
    group.add("--base-url", str, "URL", "the server's address, instead of --host and --port")
    group.add("--host", str, "ADDRESS", "", "127.0.0.1")
    group.add("--port", int, "N", "", 8000)
    group.add("--backend", str, None, "kind of endpoint", "openai", choices=BACKENDS)
    group.add("--endpoint", str, "PATH", "(default: the backend's own, such as /v1/completions)")
    group.add("--model", str, "NAME", "(default: the first that the server tells)")
    group.add("--served-model-name", str, "NAME", "the model's name in requests, if it is another")
    header = "sent with each request; may be repeated. $OPENAI_API_KEY is sent as a key"
    group.add("--header", _pair, "NAME=VALUE", header, nargs="+", action="extend")
    group.add("--ready-check-timeout-sec", float, "S", "how long to wait for the server; 0 does not ask", 600.0)


def _add_prompts(group: _Group) -> None:
    names = ", ".join(_datasets())
    group.add("--dataset-name", str, "NAME", f"one of {names}", "random", choices=_datasets())
    group.add("--dataset-path", Path, "FILE", 'of custom: lines {"prompt": "..."}; of sharegpt: its JSON')
    group.add("--tokenizer", str, "MODEL", "an alias, a folder, a .gguf file or a hub id (default: the model's)")
    group.add("--num-prompts", int, "N", "", 1000)
    group.add("--seed", int, "N", "of prompts and times", 0)
    group.add("--input-len", int, "N", "tokens of a prompt that is made up")
    group.add("--output-len", int, "N", "tokens to generate, whatever the dataset")
    group.add("--random-input-len", int, "N", "", 1024)
    group.add("--random-output-len", int, "N", "", 128)
    group.add("--random-range-ratio", float, "R", "by what share lengths may differ, from 0 to 1", 0.0)
    group.add("--random-prefix-len", int, "N", "tokens with which all made-up prompts begin", 0)
    group.add("--common-prefix-len", int, "N", "the same")
    group.add("--custom-output-len", int, "N", "", 256)
    group.add("--sharegpt-output-len", int, "N", "(default: that of the conversation)")
    group.switch("--skip-chat-template", "send prompts to /v1/completions as they are")
    group.switch("--disable-shuffle", "take a file's prompts in their order")
    group.switch("--no-oversample", "repeat no prompt where there are too few")


def _add_sampling(group: _Group) -> None:
    for name in ("top-p", "min-p", "frequency-penalty", "presence-penalty", "repetition-penalty"):
        group.add(f"--{name}", float, "X", "(default: the server's)")
    group.add("--top-k", int, "K", "(default: the server's)")
    group.add("--temperature", float, "T", "(default: 0, the likeliest token)")
    group.add("--logprobs", int, "K", "ask for log-probabilities of the chosen and the K likeliest tokens")
    group.switch("--ignore-eos", "generate all tokens asked for; made-up prompts always do")
    group.add("--extra-body", values.json_object, "JSON|FILE", "what else a request has (default: nothing)", {})
    group.add("--exit", _dial, "DIAL", "the request's `exit`: off, lossless, or a risk such as 0.02 or task:0.02")
    group.switch("--agreement", 'send everything again with `"exit": "off"`, and compare')
    group.add("--reference-url", str, "URL", "compare with this server instead")


def _add_load(group: _Group) -> None:
    group.add("--max-concurrency", int, "N", "requests that run at a time (default: any number)")
    group.add("--request-rate", float, "R", "requests a second; inf sends all at once", math.inf)
    group.add("--burstiness", float, "B", "1 is a Poisson process, less comes in bursts, more is evener", 1.0)
    group.add("--ramp-up-strategy", str, None, "change the rate on the way", choices=("linear", "exponential"))
    group.add("--ramp-up-start-rps", int, "R", "requests a second at the start")
    group.add("--ramp-up-end-rps", int, "R", "and at the end")
    group.add("--num-warmups", int, "N", "requests before those that count", 0)


def _add_results(group: _Group) -> None:
    metrics = "ttft, tpot, itl, e2el: which to tell (default: all)"
    group.add("--percentile-metrics", _words, "NAME,...", metrics, ("ttft", "tpot", "itl", "e2el"))
    group.add("--metric-percentiles", _numbers, "P,...", "which to tell of each (default: 99)", (99.0,))
    goodput = "milliseconds a request may take: ttft, tpot, e2el"
    group.add("--goodput", _goal, "NAME:MS", goodput, nargs="+", action="extend")
    group.switch("--save-result", "write a JSON file, with the names that vLLM has")
    group.switch("--save-detailed", "with an entry for each request: times, texts, errors")
    group.switch("--append-result", "add a line to the file instead of replacing it")
    group.add("--result-dir", Path, "DIR", "where to (default: here)")
    group.add("--result-filename", str, "NAME", "(default: made of label, rate, model and time)")
    group.add("--label", str, "TEXT", "begins the file's name (default: the backend)")
    group.add("--metadata", _pair, "NAME=VALUE", "kept in the file; may be repeated", nargs="+", action="extend")
    group.add("--request-id-prefix", str, "TEXT", "of X-Request-Id (default: drawn)", f"bench-{uuid4().hex[:8]}-")
    group.switch("--disable-tqdm", "show no progress")


def _datasets() -> tuple[str, ...]:
    from offramp.bench.load.samples import NAMES

    return NAMES


def _pair(text: str) -> tuple[str, str]:
    """`NAME=VALUE`."""
    return values.pair(text, str, str)


def _goal(text: str) -> tuple[str, float]:
    """`NAME:MS`."""
    name, colon, number = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"`{text}` is not of the form `NAME:MS`")
    return values.pair(f"{name}={number}", str, float)


def _words(text: str) -> tuple[str, ...]:
    """`a,b`."""
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    """`50,99`."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is not a list of numbers such as 50,99") from None


def _dial(text: str) -> str | dict[str, Any]:
    """A position of the dial as requests have it."""
    if text in ("off", "lossless"):
        return text
    try:
        return {"risk": float(text)}
    except ValueError:
        return {"risk": text}
