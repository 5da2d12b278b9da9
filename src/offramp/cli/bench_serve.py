"""`offramp bench serve`: load on a server with OpenAI's API; the flags and the table of `vllm bench serve`."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli import bench_serve_flags
from offramp.cli.progress import Update, on_download, show_progress
from offramp.cli.terminal import print_json, print_note
from offramp.errors import InvalidParameter

if TYPE_CHECKING:
    from offramp.bench.load.bench import Plan
    from offramp.bench.load.bodies import Form
    from offramp.bench.load.client import Target
    from offramp.bench.load.samples import Dataset
    from offramp.tokenizer import Tokenizer

TAKES = ""

EXAMPLES = (
    "offramp bench serve --tokenizer smollm2-135m --num-prompts 64 --max-concurrency 8",
    "offramp bench serve --dataset-name mtbench --num-prompts 80 --max-concurrency 8 --exit lossless --agreement",
)

SAMPLING = ("top_p", "top_k", "min_p", "temperature", "frequency_penalty", "presence_penalty", "repetition_penalty")

DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors")
"""What is saved with `--save-detailed` only."""

add_arguments = bench_serve_flags.add_arguments


def run(args: argparse.Namespace) -> int:
    """Measure, print the table (or JSON), and save it."""
    from offramp.bench.load.figures import Wanted

    wanted = Wanted(args.percentile_metrics, args.metric_percentiles, _distinct(args.goodput, "goodput"))
    target, plan = _target(args.base_url, args), _plan(args)
    _check(args)
    with show_progress() as update:
        if args.disable_tqdm:
            update = _silent
        result = asyncio.run(_measure(args, target, plan, wanted, update))
        update(1, 1, "done")
    return _tell(args, result)


def _silent(done: int, total: int, text: str) -> None:
    pass


async def _measure(args: argparse.Namespace, target: Target, plan: Plan, wanted: Any, update: Update) -> dict[str, Any]:
    from offramp.bench.load.bench import run, served_model
    from offramp.bench.load.samples import draw

    model = args.model or await served_model(target, plan.ready_seconds)
    tokenizer = _tokenizer(args, model, update)
    dataset = _dataset(args)
    samples = draw(dataset, tokenizer, on_download(update))
    form = _form(args, args.served_model_name or model)
    reference = await _reference(args, target, form, plan)
    facts = {
        "backend": args.backend,
        "label": args.label,
        "model_id": model,
        "tokenizer_id": args.tokenizer or model if tokenizer else None,
        "num_prompts": len(samples),
        **_distinct(args.metadata, "metadata"),
        "request_rate": args.request_rate if args.request_rate < float("inf") else "inf",
        "burstiness": args.burstiness,
        "max_concurrency": args.max_concurrency,
    }
    measured = await run(target, form, samples, plan, wanted, update, tokenizer=tokenizer, reference=reference)
    return {**facts, **measured}


def _target(url: str | None, args: argparse.Namespace) -> Target:
    from offramp.bench.load.client import Target

    headers = _distinct(args.header, "header")
    if key := os.environ.get("OPENAI_API_KEY"):
        headers = {"Authorization": f"Bearer {key}", **headers}
    for name, value in headers.items():
        if not (name + value).isprintable():
            raise InvalidParameter(f"the header `{name}` cannot be sent", param="header")
    host = f"[{args.host}]" if ":" in args.host else args.host
    return Target.from_url(url or f"http://{host}:{args.port}", headers)


def _plan(args: argparse.Namespace) -> Plan:
    from offramp.bench.load.arrivals import Arrivals
    from offramp.bench.load.bench import Plan
    from offramp.types.checks import check_integer, check_number

    if args.max_concurrency is not None:
        check_integer("max_concurrency", args.max_concurrency, 1)
    check_integer("num_warmups", args.num_warmups, 0)
    check_number("ready_check_timeout_sec", args.ready_check_timeout_sec, 0, 1e6)
    ramp = args.ramp_up_strategy, args.ramp_up_start_rps, args.ramp_up_end_rps
    arrivals = Arrivals(args.request_rate, args.burstiness, *ramp)
    return Plan(arrivals, args.max_concurrency, args.num_warmups, args.ready_check_timeout_sec, args.seed)


def _check(args: argparse.Namespace) -> None:
    """Raises InvalidParameter: flags that have no effect together."""
    compared = args.agreement or args.reference_url is not None
    chance = args.extra_body.get("temperature", args.temperature or 0)
    if compared and chance and "seed" not in args.extra_body:
        raise InvalidParameter(
            "answers drawn by chance agree with nothing",
            param="agreement",
            hint="leave out `--temperature`, or add `--extra-body '{\"seed\": 0}'`",
        )
    if args.result_dir and not (args.save_result or args.append_result):
        raise InvalidParameter("`--result-dir` needs `--save-result`", param="result_dir")
    if args.result_filename and not (args.save_result or args.append_result):
        raise InvalidParameter("`--result-filename` needs `--save-result`", param="result_filename")


def _dataset(args: argparse.Namespace) -> Dataset:
    from offramp.bench.load.samples import Dataset

    own = {"random": args.random_output_len, "sharegpt": args.sharegpt_output_len}
    output_len = own.get(args.dataset_name, args.custom_output_len)
    prefix_len = args.random_prefix_len if args.common_prefix_len is None else args.common_prefix_len
    return Dataset(
        name=args.dataset_name,
        path=args.dataset_path,
        count=args.num_prompts,
        seed=args.seed,
        input_len=args.random_input_len if args.input_len is None else args.input_len,
        range_ratio=args.random_range_ratio,
        prefix_len=prefix_len,
        output_len=output_len if args.output_len is None else args.output_len,
        template=args.backend == "openai" and not args.skip_chat_template,
        shuffle=not args.disable_shuffle,
        oversample=not args.no_oversample,
    )


def _form(args: argparse.Namespace, model: str) -> Form:
    from offramp.bench.load.bodies import Form

    sampling = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    extra = {"temperature": 0.0, **sampling}
    if args.logprobs is not None:
        chat = args.backend == "openai-chat"
        extra |= {"logprobs": True, "top_logprobs": args.logprobs} if chat else {"logprobs": args.logprobs}
    if args.exit is not None:
        extra["exit"] = args.exit
    ignore_eos = args.ignore_eos or args.dataset_name == "random"
    body = {**extra, **args.extra_body}
    return Form(args.backend, model, args.endpoint or "", ignore_eos, body, args.request_id_prefix)


async def _reference(args: argparse.Namespace, target: Target, form: Form, plan: Plan) -> tuple[Target, Form] | None:
    """What answers are compared with: this server at full depth, or another one, which need not know of exits."""
    from dataclasses import replace

    from offramp.bench.load.bench import served_model

    if args.reference_url is None:
        return (target, replace(form, extra={**form.extra, "exit": "off"})) if args.agreement else None
    other = _target(args.reference_url, args)
    extra = {name: value for name, value in form.extra.items() if name != "exit"}
    model = await served_model(other, plan.ready_seconds)
    return other, replace(form, model=model, extra=extra)


def _tokenizer(args: argparse.Namespace, model: str, update: Update) -> Tokenizer | None:
    """The tokenizer asked for; else that of the served model, where its name is an alias or a path."""
    from offramp.models import ALIASES, load_model

    if args.tokenizer is None and model not in ALIASES and not Path(model).exists():
        return None
    return load_model(args.tokenizer or model, on_download(update)).tokenizer


def _distinct(pairs: list[tuple[str, Any]] | None, flag: str) -> dict[str, Any]:
    made = dict(pairs or ())
    if len(made) < len(pairs or ()):
        raise InvalidParameter(f"`--{flag}` names something twice", param=flag)
    return made


def _tell(args: argparse.Namespace, result: dict[str, Any]) -> int:
    """Print and save; the exit code is 1 if no request succeeded."""
    from datetime import datetime, timezone

    from offramp.bench.load.lines import lines

    now = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    errors = sorted({error for error in result["errors"] if error is not None})
    if not args.save_detailed:
        result = {name: value for name, value in result.items() if name not in DETAILS}
    result = {"date": now, **result}
    if args.json:
        print_json(result)
    else:
        print("\n".join(lines(result)))
    for error in errors[:3]:
        print_note(f"a request failed: {error}")
    for error in result.get("reference_errors", ())[:3]:
        print_note(f"a request at full depth failed: {error}")
    if args.save_result or args.append_result:
        print_note(f"written to {_save(args, result, now)}")
    return int(result["completed"] == 0)


def _save(args: argparse.Namespace, result: dict[str, Any], now: str) -> Path:
    import json

    rate = f"{result['request_rate']}qps"
    if args.ramp_up_strategy is not None:
        rate = f"ramp-up-{args.ramp_up_strategy}-{args.ramp_up_start_rps}qps-{args.ramp_up_end_rps}qps"
    together = "" if args.max_concurrency is None else f"-concurrency{args.max_concurrency}"
    model = str(result["model_id"]).rpartition("/")[2]
    name = args.result_filename or f"{args.label or args.backend}-{rate}{together}-{model}-{now}.json"
    path = Path(args.result_dir or ".") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if args.append_result else "w", encoding="utf-8") as file:
        print(json.dumps(result, ensure_ascii=False), file=file)
    return path
