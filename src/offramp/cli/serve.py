"""`offramp serve`: a model behind OpenAI's API."""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.cli import flags, values
from offramp.cli.options import Options, print_options, read_options
from offramp.cli.progress import on_download, show_progress
from offramp.cli.terminal import print_note
from offramp.errors import InvalidParameter, MissingDependency
from offramp.exits.calibration import read_risk
from offramp.types.exits import ExitParams

if TYPE_CHECKING:
    from offramp.models import AnyModel
    from offramp.serve.settings import ServerSettings

TAKES = "[MODEL]"

EXAMPLES = (
    "offramp serve --exits smollm2-135m --exit lossless",
    "offramp serve ./model --host 0.0.0.0 --api-key-file key.txt --max-risk 0.05",
)

NEEDED = ("fastapi", "uvicorn", "prometheus_client")

DEFAULTS: dict[str, Any] = {
    "model": flags.DEFAULT_MODEL,
    "host": "127.0.0.1",
    "port": 8000,
    "max_queue": 128,
    "max_body": 4 * 2**20,
    "drain_timeout": 30.0,
    "send_timeout": 60.0,
    "shadow": 0.0,
    "log_format": "text",
    "root_path": "",
}
"""Of options that are not always there; others have theirs where they are used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags, each of which is an `OFFRAMP_` variable and a name in the TOML file as well."""
    parser.set_defaults(parser=parser)
    group = parser.add_argument_group("server")

    def add(flag: str, read: Any, metavar: str | None, help: str, **more: Any) -> None:
        default = DEFAULTS.get(flag[2:].replace("-", "_"))
        shown = f"{help} (default: {default})" if default not in (None, "") else help
        group.add_argument(flag, type=read, metavar=metavar, help=shown, default=argparse.SUPPRESS, **more)

    add("--host", str, "ADDRESS", "where to listen; only this machine reaches the default")
    add("--port", int, "N", "0 takes any that is free")
    words = "the model's names in requests; answers have the first (default: MODEL)"
    add("--served-model-name", str, "NAME", words, action="extend", nargs="+")
    add("--api-key", str, "KEY", "what requests must show; better in a file or in OFFRAMP_API_KEY")
    add("--api-key-file", Path, "FILE", "a file with the key")
    add("--max-queue", int, "N", "requests that may wait; more are answered 429")
    add("--max-body", values.size, "BYTES", "the largest request, such as 4M")
    add("--max-risk", float, "R", "no request may ask for a larger risk; then only calibrated ones are taken")
    group.add_argument(
        "--allow-criteria",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="requests may give a criterion of their own (default: unless there is --max-risk)",
    )
    add("--cors-origin", str, "ORIGIN", "web pages from here may send requests; may be repeated", action="append")
    add("--root-path", str, "PATH", "where a proxy mounts the server, such as /llm")
    add("--drain-timeout", float, "SECONDS", "what running requests get when the server is told to end")
    add("--send-timeout", float, "SECONDS", "how long a client may leave a stream unread before it counts as gone")
    add("--shadow", float, "SHARE", "of requests, such as 0.01, to rescore at full depth while idle: the measured risk")
    add("--log-format", str, None, "of the log on standard error", choices=("text", "json"))
    add("--kv-cache-memory", values.size, "BYTES", "of the KV cache, sources included, such as 4G, not --kv-tokens")
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML with any of these options by name")
    group.add_argument("--print-config", action="store_true", help="print all options and where they come from")
    flags.add_model_flags(parser, positional=True, default=argparse.SUPPRESS)
    add("--model", str, "MODEL", "the same as MODEL")
    flags.add_engine_flags(parser)
    flags.add_exit_flags(parser)
    parser.epilog = (
        f"{parser.epilog}\n\nA flag is stronger than its variable, such as OFFRAMP_PORT=8080, and a variable\n"
    )
    parser.epilog += "than --config, where it is written `port = 8080`."


def run(args: argparse.Namespace) -> int:
    """Serve until told to end."""
    file = args.config or (Path(os.environ["OFFRAMP_CONFIG"]) if os.environ.get("OFFRAMP_CONFIG") else None)
    options = read_options(args.parser, args, os.environ, file)
    if args.print_config:
        print_options(options, DEFAULTS, args.json)
        return 0
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"the server needs {', '.join(missing)}, which is not installed", hint="pip install 'offramp[server]'"
        )
    asked = {**DEFAULTS, **options.values}
    settings = read_settings(asked, options)
    from offramp.serve.server import listen

    listen(asked["host"], asked["port"]).close()  # whether it can be, is known before a download
    with show_progress() as update:
        from offramp.models import load_any

        model = load_any(asked["model"], on_download(update))
    with listen(asked["host"], asked["port"]) as listening:
        _serve(model, asked, settings, listening)
    return 0


def read_settings(asked: dict[str, Any], options: Options) -> ServerSettings:
    """The settings of the HTTP side.

    Raises:
        InvalidParameter: a value that is not allowed, or two that say the same.
    """
    from offramp.serve.settings import ServerSettings
    from offramp.types.checks import check_integer, check_number

    check_integer("port", asked["port"], 0, 65535)
    check_integer("max_queue", asked["max_queue"], 1)
    check_number("drain_timeout", asked["drain_timeout"], 0, 86_400)
    check_number("send_timeout", asked["send_timeout"], 1, 86_400)
    check_number("shadow", asked["shadow"], 0, 1)
    if asked.get("max_risk") is not None:
        check_number("max_risk", asked["max_risk"], 0, 1)
    if asked["root_path"] and not asked["root_path"].startswith("/"):
        raise InvalidParameter("`root_path` must begin with `/`", param="root_path")
    names = list(dict.fromkeys(asked.get("served_model_name") or [asked["model"]]))
    given = {name: options.values.get(name) for name in [f.name for f in fields(ExitParams)]}
    dial = argparse.Namespace(exit=options.values.get("exit"), **{n: v for n, v in given.items() if v is not None})
    default = flags.exit_dial(dial)
    _check_default(default, asked.get("max_risk"))
    return ServerSettings(
        model_name=names[0],
        other_names=tuple(names[1:]),
        exit=default,
        max_risk=asked.get("max_risk"),
        allow_criteria=asked.get("allow_criteria", asked.get("max_risk") is None),
        api_key=_key(asked),
        root_path=asked["root_path"].rstrip("/"),
        cors_origins=tuple(asked.get("cors_origin", ())),
        max_body=asked["max_body"],
        drain_timeout=asked["drain_timeout"],
        send_timeout=asked["send_timeout"],
        shadow=asked["shadow"],
    )


def _check_default(exit: str | ExitParams, most: float | None) -> None:
    """What requests get that say nothing must be what they may ask for. Words and criteria have no risk to compare."""
    try:
        risk = read_risk(str(exit))[1]
    except ValueError:
        return
    if most is not None and risk > most:
        raise InvalidParameter(
            f"`exit` is {exit}, `max_risk` allows at most {most:g}",
            param="exit",
            hint="requests that say nothing would have more than they may ask for: lower one, or raise the other",
        )


def _key(asked: dict[str, Any]) -> str | None:
    if asked.get("api_key_file") is None:
        key = asked.get("api_key")
    elif asked.get("api_key") is not None:
        raise InvalidParameter("there is `api_key` and `api_key_file`", param="api_key", hint="give one of them")
    else:
        key = Path(asked["api_key_file"]).read_text(encoding="utf-8").strip()
    if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
        raise InvalidParameter("the API key must be printable ASCII, and not empty", param="api_key")
    return key


def _serve(model: AnyModel, asked: dict[str, Any], settings: ServerSettings, listening: Any) -> None:
    from offramp.serve.app import create_app
    from offramp.serve.logs import Log
    from offramp.serve.metrics import Metrics
    from offramp.serve.process import ProcessClient
    from offramp.serve.risks import ShadowRisks
    from offramp.serve.server import serve

    log = Log(asked["log_format"])
    shadow = ShadowRisks(log.write)
    client = ProcessClient(engine_options(model, asked), settings.shadow, shadow.add, settings.exit)
    app = create_app(client, model.tokenizer, settings, Metrics(settings.model_name, shadow), log)
    asyncio.run(serve(app, client, settings, listening, print_note))


def engine_options(model: AnyModel, asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `LLM` in the engine's process. A cache given in bytes becomes one in tokens and source tokens.

    Raises:
        InvalidParameter: it is given in both, or a length is not the model's.
    """
    names = ("model", "max_queue", *flags.MODEL_FLAGS, *flags.ENGINE_FLAGS)
    given = {name: asked[name] for name in names if name in asked}
    memory = asked.get("kv_cache_memory")
    if memory is None:
        return given
    for name in ("kv_tokens", "source_tokens"):
        if name in given:
            raise InvalidParameter(
                f"there is `{name}` and `kv_cache_memory`", param="kv_cache_memory", hint="give one of them"
            )
    from offramp.llm.backend import choose_backend
    from offramp.llm.load import resolve_exits
    from offramp.llm.stores import Stores

    kinds = {name: given.get(name, default) for name, default in {"executor": "auto", "device": "cpu"}.items()}
    backend = choose_backend(**kinds, dtype=given.get("dtype", "auto"), kv_dtype=given.get("kv_dtype", "auto"))
    stores = Stores(model.spec, resolve_exits(given.get("exits"), model), backend)
    tokens, source_tokens = stores.split(
        memory, *stores.lengths(given.get("max_model_len"), given.get("max_source_len"))
    )
    return {**given, "kv_tokens": tokens, **({"source_tokens": source_tokens} if stores.has_sources else {})}
