"""`offramp bench`: this engine beside others, and what exits make of the time they save."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli import values
from offramp.cli.flags import DEFAULT_MODEL
from offramp.cli.progress import Update, on_download, show_progress
from offramp.cli.terminal import print_json, print_note
from offramp.errors import InvalidParameter
from offramp.types.checks import MAX_THREADS, check_integer

if TYPE_CHECKING:
    from offramp.bench.engine_tables import Table

TAKES = "engine|exits"

EXAMPLES = (
    "offramp bench engine --quick --peer-python llama.cpp=/opt/llama/bin/python",
    "offramp bench exits --batch 1,8 --out results",
)

ENGINE_ONLY = ("peers", "peer_python", "prefill")
EXITS_ONLY = ("trace", "policies", "head_words")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and how long."""
    parser.add_argument("what", choices=("engine", "exits"), metavar="engine|exits", help=_WHAT)
    group = parser.add_argument_group("both")
    group.add_argument("-m", "--model", default=DEFAULT_MODEL, metavar="MODEL", help=f"(default: {DEFAULT_MODEL})")
    group.add_argument("--out", type=Path, metavar="DIR", help="write the report (JSON) and a plot (SVG) here")
    group.add_argument("--resume", action="store_true", default=argparse.SUPPRESS, help="go on where --out stopped")
    group.add_argument("--quick", action="store_true", help="fewer batches, repeats and tokens: minutes, not an hour")

    def add(flag: str, read: Any, metavar: str, help: str, **more: Any) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS, **more)

    add("--threads", int, "N", "threads of every engine (default: one per core)")
    add("--batch", integers, "N,...", "sequences at once (default: 1,4,8,16,32)")
    add("--repeats", int, "N", "rounds that count (default: 5)")
    add("--new-tokens", int, "N", "tokens timed for each sequence (default: 64)")
    add("--dtype", words, "TYPE,...", "offramp's weights; exits: one type (default: engine int8,int4; exits int8)")
    group = parser.add_argument_group("engine")
    add(
        "--peers",
        words,
        "NAME,...",
        "others, `NAME`, `NAME:PRECISION` or `NAME:PRECISION@avx2`; `none` for none (default: all)",
    )
    python = "the Python that has a peer (default: $OFFRAMP_BENCH_PYTHON_<NAME>, or this one); may be repeated"
    add("--peer-python", setting, "NAME=PATH", python, action="append")
    add("--prefill", int, "N", "tokens of the prompt whose first token is timed; 0 for none (default: 512)")
    group = parser.add_argument_group("exits")
    add("--trace", Path, "FILE", "also replay the exits that `--record-trace` wrote to this file")
    add("--policies", words, "NAME,...", "of batching (default: lockstep,compact,depth)")
    add("--head-words", int, "N", "tokens that exit heads score, 0 for all (default: 8192)")


_WHAT = (
    "engine: decode, prefill, load and memory beside other engines; exits: replayed exits under each batching policy"
)


def run(args: argparse.Namespace) -> int:
    """Measure, print tables (or JSON), and write files."""
    others = EXITS_ONLY if args.what == "engine" else ENGINE_ONLY
    for name in others:
        if hasattr(args, name):
            raise InvalidParameter(
                f"`--{name.replace('_', '-')}` says nothing about `bench {args.what}`",
                param=name,
                hint=f"it belongs to `offramp bench {'exits' if args.what == 'engine' else 'engine'}`",
            )
    if hasattr(args, "resume") and args.out is None:
        raise InvalidParameter(
            "`--resume` needs `--out`", param="resume", hint="give the `--out` of the run to go on with"
        )
    with report_folder(args.out) as folder, show_progress() as update:
        if args.what == "engine":
            return _engine(args, folder, update)
        return _exits(args, folder, update)


def _engine(args: argparse.Namespace, folder: Path, update: Update) -> int:
    from offramp.bench.engine_run import EngineRun
    from offramp.bench.engine_tables import absent_lines, rejected_line, tables
    from offramp.bench.engines import PEERS, given_pythons, our_engines, peer_engines
    from offramp.bench.inputs import read_model
    from offramp.bench.settings import QUICK, Settings
    from offramp.bench.svg import plot

    given = given_flags(args, {"batches": "batch", "prefill_tokens": "prefill"}, "repeats", "new_tokens")
    settings = Settings(**{**(QUICK if args.quick else {}), **given})
    peers = getattr(args, "peers", list(PEERS))
    engines = our_engines(getattr(args, "dtype", ["int8", "int4"])) + peer_engines([] if peers == ["none"] else peers)
    pythons = given_pythons(getattr(args, "peer_python", []), engines)
    run = EngineRun(engines, settings, threads_of(args), folder, pythons=pythons, update=update)
    report = run.run(read_model(args.model, on_download(update)), hasattr(args, "resume"))
    (folder / "engine.svg").write_text(plot(report), encoding="utf-8")
    update(1, 1, "done")
    show_report(args, report.to_dict(), tables(report), [*absent_lines(report), rejected_line(report)])
    # A peer may be absent; that offramp fails is an error even where it got through in another precision.
    return int(any(engine.ours and engine.absent is not None for engine in report.engines))


def _exits(args: argparse.Namespace, folder: Path, update: Update) -> int:
    from offramp.bench.engines import our_engines
    from offramp.bench.exit_plot import exit_plot
    from offramp.bench.exit_run import QUICK, ExitRun, ExitSettings, open_llm, write_pack
    from offramp.bench.exit_tables import exit_rejected_line, exit_tables
    from offramp.bench.exit_traces import SHARES, default_exits, made_up_traces, recorded_trace, shipped_trace
    from offramp.bench.inputs import read_model
    from offramp.models.cache import sha256_of

    given = given_flags(args, {"batches": "batch"}, "repeats", "new_tokens", "policies", "head_words")
    settings = ExitSettings(**{**(QUICK if args.quick else {}), **given})
    engines = our_engines(getattr(args, "dtype", ["int8"]))
    if len(engines) != 1:
        raise InvalidParameter("`bench exits` takes one `--dtype`", param="dtype")
    threads = threads_of(args)
    model = read_model(args.model, on_download(update))
    depth = model.spec.num_layers
    shipped = shipped_trace(depth)
    groups = [made_up_traces(depth, default_exits(depth), (0.6,) if args.quick else SHARES)]
    groups[0] += [] if shipped is None else [shipped]
    facts = {"name": model.name, "model": model.identity, "dtype": engines[0].name, "threads": threads}
    if hasattr(args, "trace"):
        groups.append([recorded_trace(args.trace, depth)])
        facts["trace"] = sha256_of(args.trace)
    run = ExitRun(settings, folder, facts, update=update, resume=hasattr(args, "resume"))
    for traces in groups:
        pack = write_pack(folder / "pack", model.spec, traces[0].exits, settings.head_words)
        with open_llm(engines[0], args.model, threads, pack, settings) as llm:
            run.replay(llm.engine.executor, model.prompts, traces)
    (folder / "exits.svg").write_text(exit_plot(run.report), encoding="utf-8")
    update(1, 1, "done")
    show_report(args, run.report.to_dict(), exit_tables(run.report), [exit_rejected_line(run.report)])
    return 0


def show_report(args: argparse.Namespace, report: dict[str, Any], tables: list[Table], notes: list[str]) -> None:
    if args.json:
        print_json(report)
    else:
        for table in tables:
            print("\n".join([*_lines(table), ""]))
    for note in notes:
        print_note(note)
    if args.out is not None:
        print_note(f"written to {args.out}")


def _lines(table: Table) -> list[str]:
    """A table as lines of any width, so that it can be kept in a file."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    texts = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [table.title, texts[0], "-" * max(map(len, texts)), *texts[1:]]


def given_flags(args: argparse.Namespace, renamed: dict[str, str], *names: str) -> dict[str, Any]:
    """The flags that were given, by the names of the settings they are."""
    flags = {**renamed, **{name: name for name in names}}
    return {name: getattr(args, flag) for name, flag in flags.items() if hasattr(args, flag)}


def threads_of(args: argparse.Namespace) -> int:
    if hasattr(args, "threads"):
        check_integer("threads", args.threads, 1, MAX_THREADS)
        threads: int = args.threads
        return threads
    try:
        from offramp.executors.native.threads import default_threads
    except ImportError:  # The native core was not built, and `--dtype float32@torch` does without.
        from offramp.bench.machine import usable_cpus

        return len(usable_cpus())
    return default_threads()


@contextmanager
def report_folder(out: Path | None) -> Iterator[Path]:
    """The folder for files: as given, made if need be, or one that is removed at the end."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
            yield Path(folder)
    else:
        out.mkdir(parents=True, exist_ok=True)
        yield out


def words(text: str) -> list[str]:
    """`a,b`."""
    return text.split(",")


def integers(text: str) -> tuple[int, ...]:
    """`1,8`."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is not a list of whole numbers such as 1,8") from None


def setting(text: str) -> tuple[str, str]:
    """`NAME=PATH`."""
    return values.pair(text, str, str)
