"""Options of a command from several places: flags are stronger than `OFFRAMP_` variables, those than a TOML file.

All of them have one reader: a variable or a value of the file is read as the flag's value would be. A list in the file,
or a variable with commas, stands for a flag that may be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter, MissingDependency, did_you_mean

PREFIX = "OFFRAMP_"

NO_OPTIONS = ("help", "json", "debug", "config", "print_config")
"""Flags that are about one call of the command."""

YES, NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for: values by the names of options, where each comes from, and those that were left out."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    names: tuple[str, ...]


def read_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, environment: Mapping[str, str], file: Path | None
) -> Options:
    """The options of a command whose flags are absent from `args` unless they were given.

    Raises:
        InvalidParameter: a value that the option does not take, or a name in the file that is no option.
        OSError: the file cannot be read.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in NO_OPTIONS}
    written = {} if file is None else _read_file(file, actions)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, action in actions.items():
        variable = PREFIX + name.upper()
        if getattr(args, name, None) is not None:
            values[name], sources[name] = getattr(args, name), "flag"
        elif environment.get(variable):
            values[name], sources[name] = _read(action, environment[variable], f"`{variable}`"), variable
        elif name in written:
            values[name], sources[name] = _read(action, written[name], f"`{name}` in `{file}`"), str(file)
    return Options(values, sources, tuple(sorted(actions)))


def print_options(options: Options, defaults: Mapping[str, Any], as_json: bool) -> None:
    """Print all options, as TOML with the source of each, or as JSON. An `api_key` is not shown."""
    values: dict[str, Any] = {name: options.values.get(name, defaults.get(name)) for name in options.names}
    if values.get("api_key") is not None:
        values["api_key"] = "(set)"
    if as_json:
        shown = {name: {"value": value, "source": _source(options, name)} for name, value in values.items()}
        print(json.dumps(shown, default=str))
        return
    for name, value in values.items():
        line = f"# {name} =" if value is None else f"{name} = {json.dumps(value, default=str)}"
        print(f"{line}  # {_source(options, name)}")


def _source(options: Options, name: str) -> str:
    return options.sources.get(name, "default")


def _read_file(path: Path, actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    try:
        values: dict[str, Any] = _toml().loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are some
        raise InvalidParameter(f"`{path}` is not TOML: {error}", param="config") from None
    for name in values:
        if name not in actions:
            raise InvalidParameter(
                f"`{path}` has the unknown option `{name}`", param=name, hint=did_you_mean(name, actions)
            )
    return values


def _toml() -> Any:
    try:
        return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:
        raise MissingDependency(
            "reading TOML needs tomli on Python 3.10", hint="pip install 'offramp[server]'"
        ) from None


def _read(action: argparse.Action, value: Any, where: str) -> Any:
    """A value as the flag would have it.

    Raises:
        InvalidParameter: the option does not take it.
    """
    if action.nargs == 0:
        return _switch(action, value, where)
    if isinstance(value, dict | bool):
        raise InvalidParameter(f"{where} cannot be {json.dumps(value)}", param=action.dest)
    repeated = isinstance(action, argparse._AppendAction)
    texts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
    texts = [part for text in texts for part in text.split(",")] if repeated else [",".join(texts)]
    reader: Any = action.type or str
    try:
        read = [reader(text) for text in texts]
    except argparse.ArgumentTypeError as error:
        raise InvalidParameter(f"{where}: {error}", param=action.dest) from None
    except ValueError:
        kind = {int: "a whole number", float: "a number"}.get(reader, "such a value")
        raise InvalidParameter(f"{where} must be {kind}, not `{texts[0]}`", param=action.dest) from None
    for one in read:
        if action.choices is not None and one not in action.choices:
            raise InvalidParameter(
                f"{where} cannot be `{one}`", param=action.dest, hint=did_you_mean(str(one), action.choices)
            )
    return read if repeated else read[0]


def _switch(action: argparse.Action, value: Any, where: str) -> Any:
    """A switch's own value where it is named as true; nothing where it is named as false. A switch that turns something
    off has the name of that thing, which is false then."""
    word = str(value).lower()
    if word not in (*YES, *NO):
        raise InvalidParameter(f"{where} must be true or false, not `{value}`", param=action.dest)
    return word in YES
