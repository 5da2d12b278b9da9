"""`offramp bench servers`: this server and others side by side, under the same load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from offramp.cli import values
from offramp.cli.bench import given_flags, integers, report_folder, setting, show_report, threads_of, words
from offramp.cli.flags import DEFAULT_MODEL
from offramp.cli.progress import on_download, show_progress
from offramp.errors import InvalidParameter, MissingDependency

TAKES = ""

EXAMPLES = (
    "offramp bench servers --program llama-server=/opt/llama/bin/llama-server --program vllm=/opt/vllm/bin/vllm",
    "offramp bench servers --batch 32 --peers none --exits smollm2-135m --dial off,lossless --out results",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and how long."""
    group = parser.add_argument_group("what")
    group.add_argument("-m", "--model", default=DEFAULT_MODEL, metavar="MODEL", help=f"(default: {DEFAULT_MODEL})")

    def add(flag: str, read: Any, metavar: str, help: str, **more: Any) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS, **more)

    add("--dtype", words, "TYPE,...", "offramp's weights (default: int8)")
    add("--exits", values.exit_layers, "LAYERS|PACK", "offramp's exits (default: those of `offramp serve`)")
    add("--dial", words, "DIAL,...", "positions of the dial to ask offramp for; the first is compared (default: off)")
    add("--peers", words, "NAME,...", "llama-server and vllm, or `NAME:PRECISION`; `none` for none (default: both)")
    program = "a peer's program (default: $OFFRAMP_BENCH_SERVER_<NAME>, or on the path); may be repeated"
    add("--program", setting, "NAME=PATH", program, action="append")
    group = parser.add_argument_group("how")
    add("--batch", integers, "N,...", "users at once (default: 1,8,32)")
    add("--requests", int, "N", "that a user sends in a run, one after the other (default: 2)")
    add("--repeats", int, "N", "rounds that count (default: 5)")
    add("--new-tokens", int, "N", "of each answer (default: 64)")
    add("--dataset", str, "NAME|FILE", 'a set of `offramp eval`, or lines {"prompt": "..."} (default: mtbench)')
    add("--max-prompt", int, "N", "tokens; longer prompts are left out (default: 256)")
    add("--threads", int, "N", "threads of every server (default: one per core)")
    group.add_argument("--out", type=Path, metavar="DIR", help="write the report (JSON), and what servers print, here")
    group.add_argument("--resume", action="store_true", default=argparse.SUPPRESS, help="go on where --out stopped")
    group.add_argument("--quick", action="store_true", help="fewer users, rounds and tokens")


def run(args: argparse.Namespace) -> int:
    """Measure, print tables (or JSON), and write the report; the exit code is 1 if one of ours failed."""
    from offramp.bench.engine_tables import absent_lines, rejected_line
    from offramp.bench.engines import our_engines
    from offramp.bench.inputs import read_model
    from offramp.bench.servers.kinds import PEERS, Room, given_programs, our_servers, peer_servers
    from offramp.bench.servers.opener import Opener
    from offramp.bench.servers.prompts import Prompts
    from offramp.bench.servers.run import ServersRun
    from offramp.bench.servers.settings import QUICK, ServersSettings
    from offramp.bench.servers.tables import server_tables
    from offramp.models import load_model

    _check(args)
    asked = given_flags(args, {"users": "batch"}, "requests", "repeats", "new_tokens", "dataset", "max_prompt")
    settings = ServersSettings(**{**(QUICK if args.quick else {}), **asked})
    dtypes = [engine.precision for engine in our_engines(getattr(args, "dtype", ["int8"]))]
    peers = getattr(args, "peers", list(PEERS))
    dials, exits = getattr(args, "dial", ["off"]), getattr(args, "exits", None)
    others = peer_servers([] if peers == ["none"] else peers)
    programs = given_programs(getattr(args, "program", []), others)
    threads = threads_of(args)
    with report_folder(args.out) as folder, show_progress() as update:
        download = on_download(update)
        model, tokenizer = read_model(args.model, download), load_model(args.model).tokenizer
        prompts = Prompts(settings.dataset, tokenizer, settings.max_prompt, settings.new_tokens, download)
        room = Room(threads, max(settings.users), settings.context)
        opener = Opener(model, room, exits, programs, folder, prompts.take(1)[0])
        facts = {"name": model.name, **settings.identity(model.identity, threads), "exits": exits, "dials": dials}
        servers = [*our_servers(dtypes, dials), *others]
        measuring = ServersRun(servers, settings, folder, facts, open_server=opener, update=update)
        report = measuring.run(prompts, hasattr(args, "resume"))
        update(1, 1, "done")
    show_report(args, report.to_dict(), server_tables(report), [*absent_lines(report), rejected_line(report)])
    return int(any(server.ours and server.absent is not None for server in report.engines))


def _check(args: argparse.Namespace) -> None:
    from importlib.util import find_spec

    if hasattr(args, "resume") and args.out is None:
        raise InvalidParameter(
            "`--resume` needs `--out`", param="resume", hint="give the `--out` of the run to go on with"
        )
    if any("@" in name for name in getattr(args, "dtype", [])):
        raise InvalidParameter("`bench servers` takes types alone, such as int8", param="dtype")
    if find_spec("fastapi") is None:
        raise MissingDependency(
            "the server needs fastapi, which is not installed", hint="pip install 'offramp[server]'"
        )
