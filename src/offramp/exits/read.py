"""Reading exit packs. The format is described in `offramp.exits.pack` and `offramp.exits.calibration`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from offramp.errors import InvalidParameter, PackError, Unsupported, did_you_mean
from offramp.exits.calibration import Calibration, CalibrationKey
from offramp.exits.pack import Adapter, Base, Classifier, ExitPack, ExitSpec, Head, Norm, Past, check_layers
from offramp.exits.shipped import find_pack, shipped_packs
from offramp.exits.trunk import read_trunk
from offramp.types.checks import check_integer, check_number, check_one_of
from offramp.types.exits import ExitParams
from offramp.weights.eight_bits import EightBitsFile

FORMAT = 1
_TOP = {"format": True, "base": True, "exits": True, "trunk": False} | dict.fromkeys(
    ("vocabularies", "defaults", "provenance"), False
)
_BASE = {"num_layers": True, "hidden_size": True, "vocab_size": True, "model": False, "fingerprint": False}
_EXIT = {f.name: f.name == "layer" for f in fields(ExitSpec)} | {"tap": False}
_CALIBRATIONS = {"format": True, "calibrations": True}
_CALIBRATION = {f.name: f.name != "measured" for f in fields(Calibration)}
_KEY = {f.name: True for f in fields(CalibrationKey)}


def read_pack(named: str | Path) -> ExitPack:
    """Read and validate the exit pack in a folder, or that comes with offramp under this name. Whether it fits a model,
    `ExitPack.check_model` says.

    Raises:
        PackError: a file is missing or malformed, or a tensor is missing, unknown or misshapen.
        Unsupported: the pack needs a tap or a head that this version does not run.
        WeightsError: `exits.safetensors` or `trunk.safetensors` is corrupt.
    """
    folder = find_pack(named)
    path, weights = folder / "exits.json", folder / "exits.safetensors"
    if not path.is_file():
        raise PackError(f"`{folder}` is not an exit pack: it has no file `exits.json`", hint=_where())
    values = _object(_load(path), "`exits.json`", _TOP)
    _check_format(values, "exits.json")
    with _located("`base` in `exits.json`"):
        base = _base(_object(values["base"], "`base`", _BASE))
    vocabularies = _vocabularies(values.get("vocabularies", {}), base.vocab_size)
    exits = _exits(values["exits"], base, vocabularies)
    tensors = EightBitsFile(weights) if weights.is_file() else None
    _check_tensors(exits, base, vocabularies, tensors.shapes if tensors else {})
    trunk = read_trunk(folder, _rank(values["trunk"]) if "trunk" in values else None)
    defaults = values.get("defaults")
    digest = hashlib.sha256(path.read_bytes())
    digest.update(weights.read_bytes() if tensors else b"")
    digest.update(trunk.path.read_bytes() if trunk else b"")
    return ExitPack(
        identity=digest.hexdigest(),
        base=base,
        exits=exits,
        vocabularies=vocabularies,
        defaults=None if defaults is None else _params(defaults, exits, "`defaults`"),
        provenance=_mapping(values.get("provenance", {}), "`provenance`"),
        calibrations=_calibrations(folder / "calibration.json", exits),
        tensors=tensors,
        trunk=trunk,
    )


def _where() -> str:
    listed = ", ".join(f"`{name}`" for name in shipped_packs())
    return "give the pack's folder" + (f", or a pack that comes with offramp: {listed}" if listed else "")


def _load(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(f"`{path.name}` cannot be read: {error}") from error


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PackError(f"{what} must be an object, not {value!r}")
    return value


def _object(value: object, what: str, keys: Mapping[str, bool]) -> Mapping[str, Any]:
    """`value` as a mapping with the keys of `keys`, where True marks those that must be there."""
    values = _mapping(value, what)
    for key in values:
        if key not in keys:
            raise PackError(f"{what} has an unknown key `{key}`", hint=did_you_mean(key, keys))
    for key, required in keys.items():
        if required and key not in values:
            raise PackError(f"{what} lacks the key `{key}`")
    return values


def _check_format(values: Mapping[str, Any], file: str) -> None:
    if values["format"] != FORMAT:
        raise PackError(
            f"`{file}` has format {values['format']!r}, and this version reads format {FORMAT}",
            hint="update offramp, or write the pack again",
        )


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Say where in the pack a value is that a check refused."""
    try:
        yield
    except InvalidParameter as error:
        raise PackError(f"{where}: {error.message}", hint=error.hint) from error


def _base(values: Mapping[str, Any]) -> Base:
    for name in ("num_layers", "hidden_size", "vocab_size"):
        check_integer(name, values[name], 1)
    for name in ("model", "fingerprint"):
        if not isinstance(values.get(name), str | None):
            raise InvalidParameter(f"`{name}` must be a string, not {values[name]!r}")
    return Base(**values)


def _rank(value: object) -> int:
    rank: int = _object(value, "`trunk`", {"rank": True})["rank"]
    with _located("`trunk` in `exits.json`"):
        check_integer("rank", rank, 1)
    return rank


def _vocabularies(value: object, vocab_size: int) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, ids in _mapping(value, "`vocabularies`").items():
        whole = isinstance(ids, list) and bool(ids) and all(type(i) is int for i in ids)
        if not whole or not all(a < b for a, b in zip([-1, *ids], [*ids, vocab_size], strict=True)):
            raise PackError(
                f"vocabulary `{name}` must list token ids below {vocab_size}, ascending and without repeats"
            )
        found[name] = tuple(ids)
    return found


def _exits(value: object, base: Base, vocabularies: Mapping[str, tuple[int, ...]]) -> tuple[ExitSpec, ...]:
    if not isinstance(value, list) or not value:
        raise PackError("`exits` must list at least one exit")
    exits = tuple(_exit(_object(item, f"exit {i + 1}", _EXIT), f"exit {i + 1}") for i, item in enumerate(value))
    check_layers([spec.layer for spec in exits], base.num_layers)
    for spec in exits:
        if spec.vocabulary is not None and spec.vocabulary not in vocabularies:
            raise PackError(
                f"the exit at layer {spec.layer} names an unknown vocabulary `{spec.vocabulary}`",
                hint=did_you_mean(spec.vocabulary, vocabularies),
            )
        outside = spec.vocabulary is not None and len(vocabularies[spec.vocabulary]) < base.vocab_size
        if spec.other and not outside:
            raise PackError(
                f"the exit at layer {spec.layer} has an output for other tokens, and its vocabulary leaves none out",
                hint="set `other` to false, or name a smaller `vocabulary`",
            )
    return exits


def _exit(values: Mapping[str, Any], where: str) -> ExitSpec:
    if values.get("tap") == "attention":
        raise Unsupported(f"{where} reads tap `attention`; this version runs tap `output` only")
    if values.get("head") == "layer":
        raise Unsupported(f"{where} has a `layer` head; this version runs heads `shared` and `own` only")
    choices = {"past": Past, "norm": Norm, "adapter": Adapter, "head": Head, "classifier": Classifier}
    with _located(where):
        check_one_of("tap", values.get("tap", "output"), ("output",))
        for key, kinds in choices.items():
            if key in values:
                check_one_of(key, values[key], get_args(kinds))
        if not isinstance(values.get("vocabulary"), str | None):
            raise InvalidParameter(f"`vocabulary` must be a name or null, not {values['vocabulary']!r}")
        if not isinstance(values.get("other", False), bool):
            raise InvalidParameter(f"`other` must be true or false, not {values['other']!r}")
        check_number("temperature", values.get("temperature", 1.0), 0, float("inf"), low_open=True)
    return ExitSpec(**{key: value for key, value in values.items() if key != "tap"})


def expected_tensors(spec: ExitSpec, d: int, r: int) -> dict[str, tuple[int | str, ...]]:
    """Tensor -> shape of one exit; a letter is a size that the file chooses, the same wherever the letter stands."""
    parts: dict[tuple[str, str], dict[str, tuple[int | str, ...]]] = {
        ("past", "deep"): {
            "past.hidden_norm.weight": (d,),
            "past.state_norm.weight": (d,),
            "past.weight": (d, 2 * d),
        },
        ("adapter", "linear"): {"adapter.weight": (d, d), "adapter.bias": (d,)},
        ("adapter", "mlp"): {
            "adapter.norm.weight": (d,),
            "adapter.gate_proj.weight": ("m", d),
            "adapter.up_proj.weight": ("m", d),
            "adapter.down_proj.weight": (d, "m"),
        },
        ("norm", "own"): {"norm.weight": (d,)},
        ("head", "own"): {"head.weight": (r, d)},
        ("other", "True"): {"other.weight": (1, d), "other.bias": (1,)},
        ("classifier", "linear"): {"classifier.weight": (1, d), "classifier.bias": (1,)},
        ("classifier", "mlp"): {
            "classifier.down.weight": ("k", d),
            "classifier.down.bias": ("k",),
            "classifier.up.weight": (1, "k"),
            "classifier.up.bias": (1,),
        },
    }
    wanted = [tensors for (part, kind), tensors in parts.items() if str(getattr(spec, part)) == kind]
    return {name: shape for tensors in wanted for name, shape in tensors.items()}


def _check_tensors(
    exits: tuple[ExitSpec, ...],
    base: Base,
    vocabularies: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    known = set()
    for spec in exits:
        r = base.vocab_size if spec.vocabulary is None else len(vocabularies[spec.vocabulary])
        sizes: dict[str, int] = {}
        for suffix, wanted in expected_tensors(spec, base.hidden_size, r).items():
            name = f"exits.{spec.layer}.{suffix}"
            known.add(name)
            if name not in shapes:
                raise PackError(f"`exits.safetensors` lacks the tensor `{name}`")
            shape = shapes[name]
            bound = [sizes.setdefault(w, n) if isinstance(w, str) else w for w, n in zip(wanted, shape, strict=False)]
            if len(shape) != len(wanted) or list(shape) != bound:
                names = ", ".join(str(sizes.get(w, w)) if isinstance(w, str) else str(w) for w in wanted)
                raise PackError(f"tensor `{name}` must have shape [{names}], not {list(shape)}")
    for name in shapes:
        if name not in known:
            raise PackError(f"`exits.safetensors` has an unknown tensor `{name}`", hint=did_you_mean(name, known))


def _params(value: object, exits: tuple[ExitSpec, ...], where: str) -> ExitParams:
    """`ExitParams` from JSON, where layers are strings."""
    values = dict(_mapping(value, where))
    with _located(where):
        if isinstance(values.get("threshold"), dict):
            by_layer = values["threshold"]
            values["threshold"] = {int(k) if k.isdecimal() else k: v for k, v in by_layer.items()}
        params = ExitParams.from_dict(values)
    if isinstance(params.threshold, Mapping):
        layers = [spec.layer for spec in exits]
        for layer in params.threshold:
            if layer not in layers:
                raise PackError(f"{where} has a threshold for layer {layer}, and the exits are at layers {layers}")
    return params


def _calibrations(path: Path, exits: tuple[ExitSpec, ...]) -> tuple[Calibration, ...]:
    if not path.is_file():
        return ()
    values = _object(_load(path), "`calibration.json`", _CALIBRATIONS)
    _check_format(values, "calibration.json")
    if not isinstance(values["calibrations"], list):
        raise PackError("`calibrations` must be a list")
    return tuple(_calibration(item, f"calibration {i + 1}", exits) for i, item in enumerate(values["calibrations"]))


def _calibration(value: object, where: str, exits: tuple[ExitSpec, ...]) -> Calibration:
    values = _object(value, where, _CALIBRATION)
    key = _object(values["key"], f"`key` of {where}", _KEY)
    with _located(where):
        check_number("risk", values["risk"], 0, 1)
        check_number("delta", values["delta"], 0, 1)
        check_integer("prompts", values["prompts"], 1)
        for name, text in {**key, "loss": values["loss"]}.items():
            if not isinstance(text, str):
                raise InvalidParameter(f"`{name}` must be a string, not {text!r}")
        for name, number in _mapping(values.get("measured", {}), "`measured`").items():
            check_number(name, number, 0, math.inf)
    return Calibration(**{**values, "key": CalibrationKey(**key), "exit": _params(values["exit"], exits, where)})
