"""`offramp bench paper`: the paper's experiment, and what each change of its configuration makes of it."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli import flags
from offramp.cli.bench import given_flags, integers, report_folder, setting, show_report, threads_of, words
from offramp.cli.progress import Update, on_download, show_progress
from offramp.errors import InvalidParameter

if TYPE_CHECKING:
    from offramp.bench.engines import Engine
    from offramp.bench.paper_settings import Heads, PaperSettings
    from offramp.llm import LLM

TAKES = "[-m MODEL] [--quick] [--out DIR]"

EXAMPLES = (
    "offramp bench paper --quick --peers none",
    "offramp bench paper --batch 1,8,32 --out results --peer-python llama.cpp=/opt/llama/bin/python",
)

PEER_TOKENS, QUICK_PEER_TOKENS = 32, 16
"""Tokens timed for each sequence when other engines are measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and how long."""
    flags.add_model_flags(parser)
    group = parser.add_argument_group("experiment")

    def add(flag: str, read: Any, metavar: str, help: str, **more: Any) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS, **more)

    add("--data", Path, "FILE", "prompts, as `offramp eval` reads them; needs --exits (default: the model's own task)")
    add("--max-tokens", int, "N", "most tokens of an answer (default: as the task needs; 128 for --data)")
    add("--batch", integers, "N,...", "clients at once (default: 1,2,4,8,16,32)")
    add("--loads", numbers, "X,...", "arrivals, 1 is what full depth can take; `none` for none (default: 0.4,0.7,1)")
    add("--thresholds", numbers, "X,...", "of max_prob and classifier; changes start from the middle (0.6,0.8,0.95)")
    add("--saturations", numbers, "X,...", "thresholds of saturation; `none` for none (default: 0.75,0.9)")
    add("--repeats", int, "N", "rounds that count (default: 5)")
    add("--peers", words, "NAME,...", "other engines at full depth, `none` for none (default: those that can run it)")
    python = "the Python that has a peer (default: $OFFRAMP_BENCH_PYTHON_<NAME>, or this one); may be repeated"
    add("--peer-python", setting, "NAME=PATH", python, action="append")
    group.add_argument("--quick", action="store_true", help="a smaller grid: minutes, not an hour")
    group.add_argument("--out", type=Path, metavar="DIR", help="write the report (JSON) and plots (SVG) here")
    group.add_argument("--resume", action="store_true", help="go on where --out stopped")


def run(args: argparse.Namespace) -> int:
    """Measure, print tables (or JSON), and write files."""
    from offramp.bench.paper_plot import paper_plots
    from offramp.bench.paper_settings import QUICK, PaperSettings
    from offramp.bench.paper_tables import paper_notes, paper_tables

    if args.resume and args.out is None:
        hint = "give the `--out` of the run to go on with"
        raise InvalidParameter("`--resume` needs `--out`", param="resume", hint=hint)
    given = given_flags(args, {"batches": "batch"}, "loads", "thresholds", "saturations", "repeats")
    grid = PaperSettings(**{**(QUICK if args.quick else {}), **given})
    with report_folder(args.out) as folder, show_progress() as update:
        report = _measure(args, grid, folder, update)
        for name, picture in paper_plots(report).items():
            (folder / name).write_text(picture, encoding="utf-8")
        update(1, 1, "done")
        show_report(args, report.to_dict(), paper_tables(report), paper_notes(report))
    return 0


def _measure(args: argparse.Namespace, grid: PaperSettings, folder: Path, update: Update) -> Any:
    from offramp.bench.paper_run import PaperRun
    from offramp.bench.paper_settings import settings_for
    from offramp.bench.workloads import choose_exits, read_workload

    args.threads = threads_of(args)
    data = getattr(args, "data", None)
    exits = choose_exits(args.model, getattr(args, "exits", None), data)
    with ExitStack() as stack:
        llms = _open(args, exits, grid, folder, stack)
        llm = llms["own"]
        engines, pythons = _engines(args, llm)
        workload = read_workload(args.model, llm.tokenizer, data, getattr(args, "max_tokens", None))
        ways, left_out = settings_for(llm.pack, llm.calibration_key, grid)
        key = llm.calibration_key
        facts = {
            "name": llm.name,
            "model": key.model,
            "pack": key.pack,
            "dtype": f"{key.executor} {key.weights}",
            "kv_dtype": key.kv_dtype,
            "device": llm.backend.device,
            "threads": args.threads,
        }
        measured = PaperRun(grid, workload, llms, ways, folder, facts, update=update, resume=args.resume)
        measured.report.left_out = left_out
        measured.measure()
    if len(engines) > 1:
        measured.keep_peers(_peers(args, grid, engines, pythons, folder, update))
    return measured.report


def _open(
    args: argparse.Namespace, exits: list[int] | str | None, grid: PaperSettings, folder: Path, stack: ExitStack
) -> dict[Heads, LLM]:
    """The model with the pack's own heads and, where those are smaller, with heads that score the whole vocabulary."""
    from offramp.bench.paper_settings import has_small_heads
    from offramp.bench.whole_heads import write_whole_heads

    most = max(grid.batches)
    fixed = {
        "max_num_seqs": most,
        "max_num_batched_tokens": max(512, most),
        "prefix_caching": False,
        "profitability": False,
    }
    own = stack.enter_context(flags.open_llm(args, exits=exits, **fixed))
    if not own.pack.exits:
        raise InvalidParameter("there is nothing to compare without exits", param="exits", hint="give `--exits`")
    whole = own
    if has_small_heads(own.pack):
        pack = write_whole_heads(folder / "whole-heads", own.pack)
        whole = stack.enter_context(flags.open_llm(args, exits=pack, **fixed))
    return {"own": own, "whole": whole}


def _engines(args: argparse.Namespace, llm: LLM) -> tuple[list[Engine], dict[str, str]]:
    """Offramp as it is measured and the peers that were asked for; offramp alone where there are none."""
    from offramp.bench.engines import given_pythons, our_engines, peer_engines
    from offramp.bench.workloads import SHIPPED

    on_cpu = llm.backend.device == "cpu"
    usual = list(SHIPPED[args.model].peers) if on_cpu and args.model in SHIPPED else []
    asked = getattr(args, "peers", usual)
    peers = peer_engines([] if asked == ["none"] else asked)
    pythons = given_pythons(getattr(args, "peer_python", []), peers)
    if not peers:
        return [], pythons
    variant = "@torch" if llm.backend.executor == "torch" else ""
    return [*our_engines([llm.backend.dtype + variant]), *peers], pythons


def _peers(
    args: argparse.Namespace,
    grid: PaperSettings,
    engines: list[Engine],
    pythons: dict[str, str],
    folder: Path,
    update: Update,
) -> dict[str, Any]:
    """A report of `offramp bench engine`: everybody at full depth, in turns."""
    from offramp.bench.engine_run import EngineRun
    from offramp.bench.inputs import read_model
    from offramp.bench.settings import Settings
    from offramp.models import load_any

    settings = Settings(
        batches=grid.batches,
        repeats=grid.repeats,
        new_tokens=QUICK_PEER_TOKENS if args.quick else PEER_TOKENS,
        prefill_tokens=0,
        step_rows=(),
    )
    (folder / "peers").mkdir(exist_ok=True)
    run = EngineRun(engines, settings, args.threads, folder / "peers", pythons=pythons, update=update)
    return run.run(read_model(args.model, on_download(update), load_any), args.resume).to_dict()


def numbers(text: str) -> tuple[float, ...]:
    """`0.5,0.8`; `none` is no number."""
    try:
        return () if text == "none" else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is not a list of numbers such as 0.5,0.8") from None
