"""The flags that several commands share, and what they become.

Defaults shown in the help are read from the classes that hold them. A flag that is not given is left out, so that those
defaults apply.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, replace
from typing import TYPE_CHECKING, Any

from offramp.cli import values
from offramp.cli.progress import on_download, show_progress
from offramp.config import EngineConfig
from offramp.errors import InvalidParameter
from offramp.types.exits import LOSSLESS, ExitParams
from offramp.types.sampling import SamplingParams

if TYPE_CHECKING:
    from offramp import LLM

DEFAULT_MODEL = "smollm2-135m"

MODEL_FLAGS = (
    "executor",
    "dtype",
    "kv_dtype",
    "device",
    "threads",
    "max_model_len",
    "max_source_len",
    "kv_tokens",
    "source_tokens",
    "block_size",
    "exits",
)
ENGINE_FLAGS = ("batching", "max_num_seqs", "max_num_batched_tokens", "prefix_caching", "profitability")


BELONGS_TO = {"fill_when": "fill", "recompute_cap": "recompute", "max_draft": "verify", "draft_threshold": "verify"}
"""Exit parameters that only one KV policy reads."""


class FieldGroup:
    """Adds flags for the fields of one dataclass: `max_draft` becomes `--max-draft`, absent unless given."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, source: type[Any]) -> None:
        self.group = parser.add_argument_group(title)
        self._fields: dict[str, Field[Any]] = {f.name: f for f in fields(source)}

    def add(self, name: str, read: Callable[[str], Any], metavar: str, help: str, flag: str = "", **more: Any) -> None:
        default = self._fields[name].default
        shown = f"{help} (default: {default})" if default not in (MISSING, None, ()) else help
        flag = flag or "--" + name.replace("_", "-")
        self.group.add_argument(
            flag, dest=name, type=read, metavar=metavar, help=shown, default=argparse.SUPPRESS, **more
        )

    def switch(self, name: str, flag: str, value: bool, help: str) -> None:
        self.group.add_argument(
            flag, dest=name, action="store_const", const=value, default=argparse.SUPPRESS, help=help
        )


def add_model_flags(parser: argparse.ArgumentParser, *, positional: bool = False, default: str = DEFAULT_MODEL) -> None:
    """Which model, and how it is held. `default` is the model's, or `argparse.SUPPRESS`."""
    group = parser.add_argument_group("model")
    what = f"an alias, a folder, a Hugging Face id or a `.gguf` file (default: {DEFAULT_MODEL})"
    if positional:
        group.add_argument("model", nargs="?", default=default, metavar="MODEL", help=what)
    else:
        group.add_argument("-m", "--model", default=default, metavar="MODEL", help=what)

    def add(flag: str, read: Callable[[str], Any], metavar: str, help: str) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS)

    add(
        "--exits",
        values.exit_layers,
        "LAYERS|PACK",
        "exits: layers such as `10,20`, an exit pack (its folder, or the name of one that comes with offramp), or "
        "`none` (default: at 2/3 and 5/6 of the depth)",
    )
    add("--executor", str, "NAME", "native or torch (default: native on the CPU, torch on other devices)")
    add(
        "--dtype",
        str,
        "TYPE",
        "of weights: int8, int4, float32, float16 or bfloat16; torch: float32, bfloat16 or float64 "
        "(default: int8; torch: float32)",
    )
    add("--kv-dtype", str, "TYPE", "of the KV cache: float16 or float32 (default: float16; torch: as the weights)")
    add("--device", str, "DEVICE", "cpu, or a torch device such as cuda; mps is untested (default: cpu)")
    add("--threads", int, "N", "threads for computing (default: one per core; torch: its own choice)")
    add(
        "--max-model-len",
        values.length,
        "N",
        "longest prompt with its output, such as 4096 or 32k (default: the model's, at most 8192, or 2048 beside an "
        "encoder)",
    )
    add("--max-source-len", values.length, "N", "longest source of a model with an encoder (default: at most 2048)")
    add("--kv-tokens", int, "N", "tokens the KV cache holds (default: about 1 GiB of them)")
    add("--source-tokens", int, "N", "tokens the store of sources holds, of an encoder (default: out of that 1 GiB)")
    add("--block-size", int, "N", "tokens in a block of the KV cache (default: 16)")


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """How requests are batched."""
    group = FieldGroup(parser, "batching", EngineConfig)
    group.add("batching", str, "POLICY", "who moves on at an exit: lockstep, compact or depth")
    group.add("max_num_seqs", int, "N", "sequences running at once")
    group.add("max_num_batched_tokens", int, "N", "token rows in a step")
    group.switch("prefix_caching", "--no-prefix-caching", False, "do not reuse the KV of shared prompt beginnings")
    group.switch("profitability", "--no-profitability", False, "keep exits on even while they cost more than they save")


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How tokens are drawn: the fields of `SamplingParams`."""
    group = FieldGroup(parser, "sampling", SamplingParams)
    group.add("max_tokens", values.optional_int, "N", "most tokens to generate; `none` fills the context")
    group.add("temperature", float, "T", "0 always takes the likeliest token")
    group.add("top_p", float, "P", "keep the likeliest tokens that reach this probability together")
    group.add("top_k", int, "K", "keep this many tokens; 0 keeps all")
    group.add("min_p", float, "P", "drop tokens below this share of the largest probability")
    group.add("repetition_penalty", float, "X", "above 1: tokens seen before become less likely")
    group.add("presence_penalty", float, "X", "-2 to 2, on tokens that were generated")
    group.add("frequency_penalty", float, "X", "-2 to 2, on tokens that were generated, for each time")
    group.add("logit_bias", values.token_bias, "ID=BIAS", "add to a token's logit; may be repeated", action="append")
    group.add("seed", int, "N", "makes sampling reproducible (default: drawn)")
    group.add("n", int, "N", "outputs per prompt", flag="--n")
    group.add("min_tokens", int, "N", "do not end before this many tokens")
    group.add("stop", str, "TEXT", "end before this text; may be repeated", action="append")
    group.add(
        "stop_token_ids", int, "ID", "end at this token; may be repeated", flag="--stop-token-id", action="append"
    )
    group.switch("ignore_eos", "--ignore-eos", True, "go on after the end-of-sequence token")
    group.add("json_schema", values.json_object, "FILE|JSON", "JSON Schema that the output satisfies; {} is any object")
    group.add("logprobs", int, "K", "log-probabilities of the chosen and the K likeliest tokens (with --json)")


def add_exit_flags(parser: argparse.ArgumentParser) -> None:
    """How tokens leave early: the dial, and the fields of `ExitParams`."""
    group = FieldGroup(parser, "exits", ExitParams)
    group.group.add_argument(
        "--exit",
        metavar="off|lossless|RISK",
        help="off, lossless (drafts checked at full depth), or a calibrated risk such as 0.02 or task:0.02 "
        "(default: off)",
    )
    group.add("criterion", str, "NAME", "what makes a token leave; `offramp doctor` lists them")
    group.add("threshold", values.threshold, "X|LAYER=X,...", "leave at this confidence")
    group.add("min_layer", int, "N", "do not leave below this layer")
    group.add("kv", str, "POLICY", "the KV of skipped layers: fill, recompute or verify")
    group.add("fill_when", str, "WHEN", "fill: lazy or iteration")
    group.add("max_draft", int, "N", "verify: drafts before they are checked")
    group.add("draft_threshold", float, "X", "verify: draft while all drafts are right with this confidence")
    group.add("recompute_cap", int, "N", "recompute: exits in a row before a token runs at full depth")
    group.add("decay", float, "TAU", "CALM's position decay of the threshold (default: none)")
    group.add(
        "options",
        values.option,
        "NAME=VALUE",
        "an option of the criterion; may be repeated",
        "--option",
        action="append",
    )


def sampling_params(args: argparse.Namespace) -> SamplingParams:
    """The sampling parameters that were given.

    Raises:
        InvalidParameter: a value that is not allowed.
    """
    given = _given(args, [f.name for f in fields(SamplingParams)])
    if "logit_bias" in given:
        given["logit_bias"] = dict(given["logit_bias"])
    return SamplingParams(**given)


def exit_dial(args: argparse.Namespace) -> str | ExitParams:
    """The dial, or exit parameters: those given, over the ones that `--exit lossless` stands for or the defaults.

    Raises:
        InvalidParameter: a value that is not allowed, or parameters beside `--exit off` or a risk.
    """
    given = _given(args, [f.name for f in fields(ExitParams)])
    if "options" in given:
        given["options"] = dict(given["options"])
    if not given:
        return args.exit or "off"
    if args.exit not in (None, "lossless"):
        raise InvalidParameter(
            f"`--exit {args.exit}` leaves no choice of `--{next(iter(given)).replace('_', '-')}`",
            param="exit",
            hint="give either `--exit` or the exit parameters",
        )
    params = replace(LOSSLESS, **given) if args.exit == "lossless" else ExitParams(**given)
    for name, kv in BELONGS_TO.items():
        if name in given and params.kv != kv:
            raise InvalidParameter(
                f"`--{name.replace('_', '-')}` says nothing about KV policy `{params.kv}`",
                param=name,
                hint=f"it belongs to `--kv {kv}`",
            )
    return params


def open_llm(args: argparse.Namespace, **more: Any) -> LLM:
    """The model that the flags ask for, downloaded if need be; `more` are further arguments of `LLM`.

    Raises:
        OfframpError: it cannot be had.
    """
    with show_progress() as update:
        update(0, 1, f"loading {args.model}")
        from offramp import LLM

        given = _given(args, [*MODEL_FLAGS, *ENGINE_FLAGS])
        return LLM(args.model, **{**given, **more}, progress=on_download(update))


def _given(args: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name in names}
