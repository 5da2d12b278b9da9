"""`offramp calibrate`: thresholds that keep a risk, and drafts that pay, written into an exit pack."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from offramp.cli import flags, values
from offramp.cli.progress import show_progress
from offramp.cli.terminal import print_json, print_note, print_table
from offramp.errors import InvalidParameter, PackError
from offramp.types.checks import check_integer, check_one_of

if TYPE_CHECKING:
    from offramp.calibrate.drafts import Race
    from offramp.calibrate.risks import RiskReport

T = TypeVar("T")

TAKES = "[MODEL] --exits PACK --data FILE|self"

EXAMPLES = (
    "offramp calibrate smollm2-135m --exits my-pack --data prompts.jsonl --risk 0.01,0.02,0.05",
    "offramp calibrate smollm2-135m --exits my-pack --data prompts.jsonl --kv recompute,verify --prompts 400",
)

SELF = Path("self")

KINDS = ("fill", "recompute", "verify")

LOSS = (
    "disagreement: tokens that differ; task: answers that are lost; text: 1 - ROUGE-L to the text of full depth; "
    "reference: ROUGE-L to completions that is lost (default: disagreement)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to calibrate, for which risks, on which prompts."""
    flags.add_model_flags(parser, positional=True)
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="FILE|self",
        help="prompts like those to be served: text lines, or `.jsonl` (docs/calibrate.md); may be repeated; or self: "
        "those that `offramp tune` held out",
    )
    group.add_argument("--prompts", type=int, default=1000, metavar="N", help="prompts to use (default: 1000)")

    def add(flag: str, read: Any, metavar: str, help: str, **more: Any) -> None:
        group.add_argument(flag, type=read, metavar=metavar, help=help, default=argparse.SUPPRESS, **more)

    add("--kv", _words, "POLICY,...", "KV policies: fill, recompute, verify (default: fill)")
    add("--risk", _numbers, "RISK,...", "expected losses that are allowed (default: 0.01,0.02,0.05)")
    add("--loss", str, "NAME", LOSS)
    add(
        "--delta", float, "D", "probability that the promise of a risk fails; several policies share it (default: 0.05)"
    )
    add("--criterion", str, "NAME", "what makes a token leave; `offramp doctor` lists them (default: max_prob)")
    add("--option", values.option, "NAME=VALUE", "an option of the criterion; may be repeated", action="append")
    add("--max-tokens", int, "N", "most tokens to generate for a prompt (default: 256)")
    add("--steps", int, "N", "fill, recompute: settings to test, at most (default: 12)")
    add("--draft-lengths", _integers, "N,...", "verify: draft lengths to try (default: 2,3,4,8)")
    add("--draft-batch", int, "N", "verify: prompts generated together while time is taken (default: 1)")
    add("--max-num-seqs", int, "N", "sequences running at once (default: 32)")


def run(args: argparse.Namespace) -> int:
    """Calibrate, write `calibration.json`, print what it says."""
    from offramp.calibrate.drafts import DraftOptions, choose_drafts
    from offramp.calibrate.prompts import choose_prompts, held_out_prompts, read_prompts
    from offramp.calibrate.risks import RiskOptions, RiskReport, calibrate_risks
    from offramp.exits.read import read_pack
    from offramp.exits.write_calibration import write_calibrations

    kinds = getattr(args, "kv", ["fill"])
    for kv in kinds:
        check_one_of("kv", kv, KINDS)
    check_integer("prompts", args.prompts, 1)
    if not args.data:
        raise InvalidParameter("there are no prompts", param="data", hint="give `--data FILE`")
    pack = _pack(args)
    common = _given(args, criterion="criterion", max_tokens="max_tokens")
    common["options"] = dict(getattr(args, "option", []))
    risks = RiskOptions(**common, **_given(args, risk="risks", loss="loss", delta="delta", steps="steps"))
    drafts = DraftOptions(**common, **_given(args, draft_lengths="lengths", draft_batch="batch"))
    reports: list[RiskReport | Race] = []
    with flags.open_llm(args, profitability=False) as llm, show_progress() as update:
        longest = llm.longest_prompt(risks.max_tokens)
        files = [path for path in args.data if path != SELF]
        found = read_prompts(files, llm.tokenizer) + (held_out_prompts(pack) if SELF in args.data else [])
        prompts = choose_prompts(found, args.prompts, longest)
        try:
            for kv in kinds:
                if kv == "verify":
                    race, calibration = choose_drafts(llm, [prompt.tokens for prompt in prompts], drafts, update)
                    reports.append(race)
                    write_calibrations(pack, read_pack(pack).calibrations, calibration.key, [calibration], [0.0])
                else:
                    # The dial will take whichever of them runs less, so they share delta.
                    share = risks.delta / (len(set(kinds)) - ("verify" in kinds))
                    report = calibrate_risks(llm, prompts, replace(risks, kv=kv, delta=share), update)
                    reports.append(report)
                    old, new = read_pack(pack).calibrations, report.calibrations
                    write_calibrations(pack, old, report.key, new, risks.risks, risks.loss)
        except KeyboardInterrupt:
            print_note("what was measured is kept: the same command goes on from there")
            raise
        update(1, 1, "done")
        depth = llm.spec.num_layers
    if args.json:
        print_json({"pack": str(pack), "prompts": len(prompts), "results": [_json(report) for report in reports]})
    else:
        for result in reports:
            _show(result, depth)
    print_note(f"written to {pack / 'calibration.json'}")
    return int(any(isinstance(report, RiskReport) and None in report.verdict.accepted.values() for report in reports))


def _pack(args: argparse.Namespace) -> Path:
    from offramp.exits.read import read_pack
    from offramp.exits.shipped import find_pack

    if not isinstance(getattr(args, "exits", None), str):
        raise PackError("a calibration is written into an exit pack", hint="give the pack's folder as `--exits PACK`")
    read_pack(args.exits)
    if (folder := find_pack(args.exits)) != Path(args.exits):
        raise PackError(
            f"`{args.exits}` comes with offramp, and is left as it is", hint=f"copy `{folder}` and calibrate the copy"
        )
    return folder


def _show(report: RiskReport | Race, depth: int) -> None:
    from offramp.calibrate.drafts import Race
    from offramp.exits.calibration import say_risk

    if isinstance(report, Race):
        speeds = ("full depth", f"{1 / report.full_depth:.1f}"), ("drafts", f"{1 / report.seconds:.1f}")
        print_table(f"verify: tokens/s, {report.prompts} prompts", ("", ""), speeds)
        winner = report.winner
        together = f", all together {winner.draft_threshold:.4g}" if winner.draft_threshold else ""
        print(f"drafts of {winner.max_draft} at {_thresholds(winner.threshold)}{together}")
        if report.seconds >= report.full_depth:
            print_note("drafts cost more than they save here: the engine will switch them off")
        return
    rows = []
    for risk, place in report.verdict.accepted.items():
        said = say_risk(report.options.loss, risk)
        if place is None:
            rows.append((said, "none keeps it", f"{report.verdict.tested[0].mean:.4f}", "", ""))
            continue
        test, layers = report.verdict.tested[place], f"{report.layers[place]:.1f} of {depth}"
        p_value = f"{test.p_values[risk]:.3f}"
        rows.append((said, _thresholds(report.path[place].thresholds), f"{test.mean:.4f}", p_value, layers))
    title = f"{report.options.kv}: {report.options.criterion}, {report.prompts} prompts"
    print_table(title, ("risk", "thresholds", report.options.loss, "p", "layers run"), rows)


def _json(report: RiskReport | Race) -> dict[str, Any]:
    from offramp.calibrate.drafts import Race
    from offramp.exits.write_calibration import params_said

    if isinstance(report, Race):
        return {**asdict(report), "kv": "verify", "winner": params_said(report.winner)}
    settings = [
        {**asdict(report.path[test.place]), "loss": test.mean, "prompts": test.count, "layers": layers}
        for test, layers in zip(report.verdict.tested, report.layers, strict=True)
    ]
    return {
        "kv": report.options.kv,
        "loss": report.options.loss,
        "accepted": report.verdict.accepted,
        "settings": settings,
    }


def _thresholds(thresholds: float | Mapping[int, float]) -> str:
    if not isinstance(thresholds, Mapping):
        return f"{thresholds:g}"
    return ", ".join(f"{layer}: {threshold:.3f}" for layer, threshold in thresholds.items())


def _given(args: argparse.Namespace, **renamed: str) -> dict[str, Any]:
    """The flags that were given, by the names of the options they are."""
    return {name: getattr(args, flag) for flag, name in renamed.items() if hasattr(args, flag)}


def _words(text: str) -> list[str]:
    """`a,b`."""
    return text.split(",")


def _numbers(text: str) -> tuple[float, ...]:
    """`0.01,0.05`."""
    return _list(text, float, "numbers such as 0.01,0.05")


def _integers(text: str) -> tuple[int, ...]:
    """`2,4`."""
    return _list(text, int, "whole numbers such as 2,4")


def _list(text: str, read: Callable[[str], T], what: str) -> tuple[T, ...]:
    try:
        return tuple(read(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is not a list of {what}") from None
