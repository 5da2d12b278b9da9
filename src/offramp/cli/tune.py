"""`offramp tune`: trains exits for a model and writes them as an exit pack."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from offramp.cli.flags import DEFAULT_MODEL, FieldGroup
from offramp.cli.progress import on_download, show_progress
from offramp.cli.terminal import print_json, print_note, print_table
from offramp.cli.values import LAYERS, token_count
from offramp.errors import InvalidParameter

if TYPE_CHECKING:
    from offramp.tune.request import TuneRequest

TAKES = "[MODEL] --out DIR"

EXAMPLES = (
    "offramp tune smollm2-135m --recipe heads,router --tokens 1M --exits auto --out my-pack",
    "offramp tune smollm2-135m --recipe layerskip --data task.jsonl --exits 10,20 --out my-task --resume",
)

ADAPTER_OF_TRUNK = "none"
"""A trunk that is tuned for its exits needs no adapter there, and an exit without one is cheap."""

OF_INVENTION = ("temperature", "top_p", "max_user_tokens")
"""Settings of data that only user turns of the model's own read."""

OF_RUN = ("recipes", "exits", "max_exits", "start", "work", "threads")
"""Options of the run itself."""

EXECUTOR_FLAGS = ("executor", "dtype", "kv_dtype", "device")

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which data, which heads, how they are trained."""
    from offramp.tune.request import TuneRequest

    what = f"an alias, a folder, a Hugging Face id or a `.gguf` file (default: {DEFAULT_MODEL})"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=what)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the folder that becomes the exit pack")
    parser.add_argument("--resume", action="store_true", help="go on where a run with the same options stopped")
    run = FieldGroup(parser, "run", TuneRequest)
    about = "heads, deep, or layerskip, which tunes the trunk too; then routers: heads,router (default: heads); or calm"
    run.add("recipes", _recipes, "RECIPE", about, flag="--recipe")
    run.add("exits", _exits, "auto|LAYERS", "exit layers such as `10,20`, or auto")
    run.add("max_exits", int, "N", "auto: most exits to choose, 1 to 4")
    run.add("start", Path, "PACK", "a pack to go on from, made with the same exits and sizes (default: none)")
    run.add("work", Path, "DIR", "data and features, which runs can share (default: `work` in --out)")
    _add_data(parser)
    _add_training(parser)
    executor = parser.add_argument_group("executor, which makes data and features: the one that will serve")
    for flag, takes, about in (
        ("--executor", "NAME", "native or torch (default: native on the CPU, torch on other devices)"),
        ("--dtype", "TYPE", "of weights (default: int8; torch: float32)"),
        ("--kv-dtype", "TYPE", "of the KV cache (default: float16; torch: as the weights)"),
        ("--device", "DEVICE", "cpu, or a torch device such as cuda; mps is untested (default: cpu)"),
    ):
        executor.add_argument(flag, metavar=takes, help=about, default=argparse.SUPPRESS)
    executor.add_argument("--threads", type=int, metavar="N", default=argparse.SUPPRESS, help="threads for computing")


def _add_data(parser: argparse.ArgumentParser) -> None:
    from offramp.tune.settings import DataSettings

    data = FieldGroup(parser, "data", DataSettings)
    data.add("data", str, "self|FILE", "self: the model invents and answers; or text, or `.jsonl` (docs/tune.md)")
    data.add("tokens", token_count, "N", "answer tokens to train on, such as 200k or 2M")
    data.add("batch", int, "N", "sequences generated at once")
    data.add("seed", int, "N", "of what is sampled")
    data.add("temperature", float, "T", "of invented user turns")
    data.add("top_p", float, "P", "of invented user turns")
    data.add("answer_temperature", float, "T", "of answers; 0 is greedy")
    data.add("max_user_tokens", int, "N", "longer invented user turns are thrown away")
    data.add("max_answer_tokens", int, "N", "answers, and pieces of text, are cut here")


def _add_training(parser: argparse.ArgumentParser) -> None:
    from offramp.tune.settings import CalmSettings, HeadSettings, RouterSettings, TrainSettings, TrunkSettings

    head = FieldGroup(parser, "heads", HeadSettings)
    head.add("adapter", str, "KIND", "none, linear or mlp (with layerskip: none)")
    head.add("adapter_size", int, "N", "inner size of an mlp adapter; 0 is the model's own")
    head.add("norm", str, "KIND", "own, shared or none")
    head.add("head", str, "KIND", "shared: rows of the LM head; own: a trained copy of them")
    head.add("head_words", int, "N", "tokens that heads score, 0 for all")
    train = FieldGroup(parser, "training", TrainSettings)
    train.add("epochs", int, "N", "passes over the data")
    train.add("lr", float, "X", "peak learning rate")
    train.add("batch_tokens", int, "N", "tokens in a step")
    train.add("weight_decay", float, "X", "of matrices")
    train.add("evaluations", int, "N", "looks at held-out data; a checkpoint is written each time")
    train.add("patience", int, "N", "stop after this many evaluations without progress")
    train.add("train_seed", int, "N", "of first weights and of the order of tokens")
    train.add("rollout", int, "N", "recipe deep: tokens in a row that are learnt to leave")
    trunk = FieldGroup(parser, "trunk, with the recipe layerskip", TrunkSettings)
    trunk.add("lora_rank", int, "N", "of the change of each linear layer")
    trunk.add("exit_weight", float, "X", "of the loss of each exit, beside 1 for the top")
    trunk.add("distil", float, "X", "how far the top is kept as it was, 0 to 1 (default: 1; 0 for a file)")
    trunk.add("layer_dropout", float, "P", "rate at which the last layer is skipped in training, less below it")
    trunk.add("curriculum", str, "KIND", "which exits learn in a step: all, rotational or gradual")
    trunk.add("filled", float, "P", "sequences in which sure tokens leave, as under fill (0: fill is not learnt)")
    calm = FieldGroup(parser, "recipe calm: a T5 and its exits", CalmSettings)
    calm.add("shape", str, "SIZES", "of a new T5: layers=4,decoder_layers=16,width=256,inner=512,vocabulary=4096,...")
    calm.add("exit_weights", str, "KIND", "of the loss behind layer i: linear (i), uniform or doubling (2^i)")
    calm.add("minutes", float, "N", "train the model for so long at most")
    calm.add("dropout", float, "P", "of sublayers")
    calm.add("longest", int, "N", "pairs with more tokens on one side are left out")
    calm.add("classifier", str, "KIND", "the loss of classifiers: balanced or geometric")
    calm.add("classifier_steps", int, "N", "steps in which classifiers are trained")
    calm.add("classifier_lr", float, "X", "peak learning rate in these")
    router = FieldGroup(parser, "routers", RouterSettings)
    router.add("router", str, "KIND", "linear or mlp")
    router.add("router_size", int, "N", "inner size of an mlp router")
    router.add("router_epochs", int, "N", "passes over the data")
    router.add("router_lr", float, "X", "peak learning rate")


def run(args: argparse.Namespace) -> int:
    """Tune, and say what came of it."""
    from offramp.tune.run import tune

    request = _request(args)
    with show_progress() as update:
        pack = tune(request, update, on_download(update))
        update(1, 1, "done")
    if args.json:
        print_json(pack)
        return 0
    print_table(
        "exits, on held-out tokens", ("layer", "agreement", "leave at 95%", "leave at 99%"), _rows(pack["exits"])
    )
    if "full_depth" in pack:
        print_table("full depth, on held-out tokens", ("", "cross-entropy", "right"), _full_depth(pack["full_depth"]))
    print_note(f"exits at {', '.join(map(str, pack['plan']['layers']))}: {pack['plan']['why']}")
    print_note(f"wrote {request.out}; try `offramp generate PROMPT --exits {shlex.quote(str(request.out))}`")
    return 0


def _rows(exits: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    shares = [[f"{point['share']:.1%}" for point in e["at_precision"].values()] for e in exits]
    return [(str(e["layer"]), f"{e['agreement']:.3f}", *s) for e, s in zip(exits, shares, strict=True)]


def _full_depth(quality: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(f"{w} trunk", f"{quality[w]:.4f}", f"{quality[f'{w}_right']:.1%}") for w in ("original", "tuned")]


def _request(args: argparse.Namespace) -> TuneRequest:
    from offramp.llm.backend import choose_backend
    from offramp.tune.request import TuneRequest
    from offramp.tune.settings import (
        CalmSettings,
        DataSettings,
        HeadSettings,
        RouterSettings,
        TrainSettings,
        TrunkSettings,
    )

    _refuse_unread(args)
    executor = [getattr(args, name, "cpu" if name == "device" else "auto") for name in EXECUTOR_FLAGS]
    own = {name: getattr(args, name) for name in OF_RUN if name in args}
    adapter = {"adapter": ADAPTER_OF_TRUNK} if "layerskip" in own.get("recipes", ()) else {}
    is_calm = own.get("recipes") == ("calm",)
    backend = choose_backend("torch" if is_calm else executor[0], executor[3], executor[1], executor[2])
    return TuneRequest(
        model=args.model or ("" if is_calm else DEFAULT_MODEL),
        out=args.out,
        backend=backend,
        data=_settings(DataSettings, args),
        head=_settings(HeadSettings, args, **adapter),
        train=_settings(TrainSettings, args),
        trunk=_settings(TrunkSettings, args),
        router=_settings(RouterSettings, args),
        calm=_settings(CalmSettings, args),
        command=_command(args),
        resume=args.resume,
        **own,
    )


def _refuse_unread(args: argparse.Namespace) -> None:
    """Refuse options that nothing would read.

    Raises:
        InvalidParameter: there is one.
    """
    from offramp.tune.settings import (
        CalmSettings,
        DataSettings,
        HeadSettings,
        RouterSettings,
        TrainSettings,
        TrunkSettings,
    )

    given = vars(args)
    recipes = given.get("recipes", ("heads",))
    of_heads = ["exits", "max_exits", *(f.name for kind in (HeadSettings, TrainSettings) for f in fields(kind))]
    of_recipe: list[str] = of_heads if recipes == ("router",) else []
    if recipes == ("calm",):
        of_recipe = ["max_exits", *(f.name for kind in (HeadSettings, DataSettings) for f in fields(kind))]
        of_recipe = [*(name for name in of_recipe if name != "data"), *EXECUTOR_FLAGS[:3]]
    for recipe, kind in (("router", RouterSettings), ("layerskip", TrunkSettings), ("calm", CalmSettings)):
        of_recipe += [] if recipe in recipes else [f.name for f in fields(kind)]
    of_recipe += [] if "deep" in recipes else ["rollout"]
    adapter = given.get("adapter", ADAPTER_OF_TRUNK if "layerskip" in recipes else "mlp")
    unread = {
        f"recipe {_text(recipes)}": of_recipe,
        f"exits {_text(given.get('exits', 'auto'))}": ["max_exits"] if given.get("exits", "auto") != "auto" else [],
        f"data {given.get('data')}": [] if given.get("data", "self") == "self" else list(OF_INVENTION),
        f"adapter {adapter}": ["adapter_size"] if adapter != "mlp" else [],
        f"router {given.get('router')}": ["router_size"] if given.get("router", "mlp") != "mlp" else [],
    }
    for what, names in unread.items():
        for name in names:
            if name in given:
                raise InvalidParameter(
                    f"`--{_flag(name)}` says nothing beside `--{what}`", param=name, hint="leave it out"
                )


def _settings(kind: type[T], args: argparse.Namespace, **defaults: str) -> T:
    given = defaults | vars(args)
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})  # type: ignore[arg-type]


def _command(args: argparse.Namespace) -> str:
    """The command as it could be typed again."""
    words = ["offramp", "tune", *([args.model] if args.model else [])]
    for name, value in vars(args).items():
        if name in ("model", "json", "debug", "resume"):
            continue
        words += ["--recipe" if name == "recipes" else f"--{_flag(name)}", _text(value)]
    return shlex.join(words)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _recipes(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _exits(text: str) -> tuple[int, ...] | str:
    return tuple(map(int, text.split(","))) if LAYERS.fullmatch(text) else text
