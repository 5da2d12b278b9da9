"""Exit packs: what is read, and what is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from offramp.errors import OfframpError, PackError, Unsupported, WeightsError
from offramp.exits.calibration import Calibration, CalibrationKey
from offramp.exits.pack import Base, ExitSpec, norm_fingerprint, static_exits
from offramp.exits.read import read_pack
from offramp.types.exits import ExitParams

D, V = 8, 20
KEY = {"model": "m", "pack": "p", "kv": "fill", "executor": "torch", "weights": "float32", "kv_dtype": "float32"}
EXITS: dict[str, Any] = {
    "format": 1,
    "base": {"num_layers": 6, "hidden_size": D, "vocab_size": V, "model": "toy"},
    "vocabularies": {"frequent": [0, 3, 19]},
    "exits": [
        {"layer": 2},
        {
            "layer": 4,
            "tap": "output",
            "norm": "own",
            "adapter": "mlp",
            "head": "own",
            "vocabulary": "frequent",
            "other": True,
            "temperature": 1.5,
            "classifier": "mlp",
        },
    ],
    "defaults": {"criterion": "margin", "threshold": {"2": 0.9, "4": 0.8}, "kv": "recompute"},
    "provenance": {"trained_on": "something"},
}
SHAPES: dict[str, tuple[int, ...]] = {
    "exits.4.norm.weight": (D,),
    "exits.4.adapter.norm.weight": (D,),
    "exits.4.adapter.gate_proj.weight": (5, D),
    "exits.4.adapter.up_proj.weight": (5, D),
    "exits.4.adapter.down_proj.weight": (D, 5),
    "exits.4.head.weight": (3, D),
    "exits.4.other.weight": (1, D),
    "exits.4.other.bias": (1,),
    "exits.4.classifier.down.weight": (7, D),
    "exits.4.classifier.down.bias": (7,),
    "exits.4.classifier.up.weight": (1, 7),
    "exits.4.classifier.up.bias": (1,),
}


def calibration(**changes: Any) -> dict[str, Any]:
    entry = {"key": KEY, "risk": 0.02, "delta": 0.05, "loss": "disagreement", "prompts": 1000, "exit": {}}
    return {**entry, **changes}


def write(
    folder: Path, exits: object = EXITS, shapes: dict[str, tuple[int, ...]] | None = None, calibrations: Any = None
) -> Path:
    (folder / "exits.json").write_text(exits if isinstance(exits, str) else json.dumps(exits))
    shapes = SHAPES if shapes is None else shapes
    if shapes:
        arrays = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(shapes.items())}
        save_file(arrays, str(folder / "exits.safetensors"))
    if calibrations is not None:
        (folder / "calibration.json").write_text(json.dumps({"format": 1, "calibrations": calibrations}))
    return folder


def changed(*path: Any, to: Any) -> dict[str, Any]:
    values = deepcopy(EXITS)
    target = values
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = to
    return values


def test_a_pack_is_read_whole(tmp_path: Path) -> None:
    pack = read_pack(write(tmp_path))
    assert pack.base == Base(6, D, V, "toy")
    assert pack.exits == (
        ExitSpec(2),
        ExitSpec(4, "own", "mlp", "own", "frequent", other=True, temperature=1.5, classifier="mlp"),
    )
    assert pack.layers == (2, 4)
    assert pack.vocabularies == {"frequent": (0, 3, 19)}
    assert pack.defaults == ExitParams(criterion="margin", threshold={2: 0.9, 4: 0.8}, kv="recompute")
    assert pack.provenance == {"trained_on": "something"}
    assert pack.calibrations == ()


def test_tensors_are_found_by_layer_and_name(tmp_path: Path) -> None:
    tensor = read_pack(write(tmp_path)).tensor(4, "classifier.up.weight")
    assert (tensor.shape, tensor[0, 0]) == ((1, 7), list(SHAPES).index("exits.4.classifier.up.weight"))


def test_an_exit_that_shares_everything_needs_no_tensors(tmp_path: Path) -> None:
    values = {"format": 1, "base": EXITS["base"], "exits": [{"layer": 3}]}
    pack = read_pack(write(tmp_path, values, shapes={}))
    assert (pack.layers, pack.defaults) == ((3,), None)


def test_the_identity_changes_with_either_file_but_not_with_calibration(tmp_path: Path) -> None:
    first = read_pack(write(tmp_path)).identity
    assert read_pack(write(tmp_path, calibrations=[calibration()])).identity == first
    second = read_pack(write(tmp_path, changed("exits", 1, "temperature", to=2))).identity
    third = read_pack(write(tmp_path, shapes=dict(reversed(SHAPES.items())))).identity
    assert len({first, second, third}) == 3


def test_static_exits_share_the_model_s_own_head() -> None:
    pack = static_exits([2, 5], 6)
    assert pack.exits == (ExitSpec(2), ExitSpec(5))
    assert pack.identity == "static:2,5"


LAYERS = [
    ([-1], "an exit layer must be a whole number from 0 to 5, not -1"),
    ([6], "an exit layer must be a whole number from 0 to 5, not 6"),
    ([True], "an exit layer must be a whole number from 0 to 5, not True"),
    ([3, 2], "exit layers must ascend, and 2 comes after 3"),
    ([3, 3], "exit layers must ascend, and 3 comes after 3"),
]


@pytest.mark.parametrize(("layers", "message"), LAYERS)
def test_layers_that_cannot_be_exits_are_refused(layers: list[int], message: str) -> None:
    with pytest.raises(PackError) as error:
        static_exits(layers, 6)
    assert error.value.message == message


def test_a_static_pack_for_a_deeper_model_is_refused() -> None:
    pack = static_exits([5], 6)
    with pytest.raises(PackError) as error:
        pack.check_model(Base(4, D, V), np.ones(D))
    assert error.value.message == "an exit layer must be a whole number from 0 to 3, not 5"


SIZES = [("num_layers", Base(7, D, V), 6, 7), ("hidden_size", Base(6, 9, V), D, 9), ("vocab_size", Base(6, D, 9), V, 9)]


@pytest.mark.parametrize(("name", "model", "wanted", "own"), SIZES)
def test_a_pack_for_another_model_is_refused(tmp_path: Path, name: str, model: Base, wanted: int, own: int) -> None:
    with pytest.raises(PackError) as error:
        read_pack(write(tmp_path)).check_model(model, np.ones(D))
    assert error.value.message == f"the exit pack is for a model with `{name}` {wanted}, and this model has {own}"
    assert error.value.hint == "use `toy`, or a pack made for this model"


def test_a_pack_for_another_model_of_the_same_size_is_refused(tmp_path: Path) -> None:
    norm = np.arange(D, dtype=np.float16)
    base = {"num_layers": 6, "hidden_size": D, "vocab_size": V, "fingerprint": norm_fingerprint(norm)}
    pack = read_pack(write(tmp_path, changed("base", to=base)))
    pack.check_model(Base(6, D, V), norm.astype(np.float64))
    with pytest.raises(PackError) as error:
        pack.check_model(Base(6, D, V), norm + 1)
    assert error.value.message == "the exit pack was made for another model: its fingerprint is not this model's"
    assert error.value.hint == "use the model it was made for, or a pack made for this model"


OUTPUT_ONLY = "exit 1 reads tap `attention`; this version runs tap `output` only"
TWO_HEADS = "this version runs heads `shared` and `own` only"
BAD_IDS = "vocabulary `frequent` must list token ids below 20, ascending and without repeats"
REFUSED: list[tuple[object, str, str | None]] = [
    ([], "`exits.json` must be an object, not []", None),
    (changed("format", to=2), "`exits.json` has format 2, and this version reads format 1", None),
    (changed("exit", to=[]), "`exits.json` has an unknown key `exit`", "did you mean `exits`?"),
    ({"format": 1, "base": EXITS["base"]}, "`exits.json` lacks the key `exits`", None),
    (changed("base", "layers", to=6), "`base` has an unknown key `layers`", "did you mean `num_layers`?"),
    (
        changed("base", "num_layers", to=0),
        "`base` in `exits.json`: `num_layers` must be a whole number of at least 1, not 0",
        None,
    ),
    (changed("base", "model", to=5), "`base` in `exits.json`: `model` must be a string, not 5", None),
    (changed("exits", to=[]), "`exits` must list at least one exit", None),
    (changed("exits", 0, to=3), "exit 1 must be an object, not 3", None),
    (changed("exits", 0, "layr", to=2), "exit 1 has an unknown key `layr`", "did you mean `layer`?"),
    (changed("exits", 0, to={}), "exit 1 lacks the key `layer`", None),
    (changed("exits", 0, "layer", to=6), "an exit layer must be a whole number from 0 to 5, not 6", None),
    (changed("exits", 0, "layer", to=4), "exit layers must ascend, and 4 comes after 4", None),
    (changed("exits", 0, "tap", to="attention"), OUTPUT_ONLY, None),
    (changed("exits", 0, "tap", to="input"), "exit 1: `tap` cannot be 'input'", "allowed: `output`"),
    (changed("exits", 0, "head", to="layer"), f"exit 1 has a `layer` head; {TWO_HEADS}", None),
    (changed("exits", 0, "norm", to="owm"), "exit 1: `norm` cannot be 'owm'", "did you mean `own`?"),
    (changed("exits", 0, "adapter", to=[]), "exit 1: `adapter` cannot be []", None),
    (changed("exits", 0, "vocabulary", to=3), "exit 1: `vocabulary` must be a name or null, not 3", None),
    (
        changed("exits", 0, "vocabulary", to="frequnt"),
        "the exit at layer 2 names an unknown vocabulary `frequnt`",
        "did you mean `frequent`?",
    ),
    (
        changed("exits", 0, "other", to=True),
        "the exit at layer 2 has an output for other tokens, and its vocabulary leaves none out",
        "set `other` to false, or name a smaller `vocabulary`",
    ),
    (changed("exits", 0, "other", to=1), "exit 1: `other` must be true or false, not 1", None),
    (
        changed("exits", 0, "temperature", to=0),
        "exit 1: `temperature` must be a number greater than 0, not 0",
        None,
    ),
    (changed("vocabularies", "frequent", to=[]), BAD_IDS, None),
    (changed("vocabularies", "frequent", to=[3, 3]), BAD_IDS, None),
    (changed("vocabularies", "frequent", to=[1, 20]), BAD_IDS, None),
    (changed("vocabularies", "frequent", to=["1"]), BAD_IDS, None),
    (changed("defaults", "thresh", to=1), "`defaults`: unknown exit parameter `thresh`", "did you mean `threshold`?"),
    (
        changed("defaults", "threshold", to={"3": 0.5}),
        "`defaults` has a threshold for layer 3, and the exits are at layers [2, 4]",
        None,
    ),
    (changed("provenance", to=1), "`provenance` must be an object, not 1", None),
]


@pytest.mark.parametrize(("values", "message", "hint"), REFUSED)
def test_what_exits_json_cannot_say(tmp_path: Path, values: object, message: str, hint: str | None) -> None:
    with pytest.raises(OfframpError) as error:
        read_pack(write(tmp_path, values))
    assert type(error.value) is (Unsupported if "this version runs" in message else PackError)
    assert error.value.message == message
    assert hint is None or str(error.value.hint).startswith(hint)


TENSORS: list[tuple[dict[str, tuple[int, ...]], str]] = [
    ({}, "`exits.safetensors` lacks the tensor `exits.4.adapter.norm.weight`"),
    ({**SHAPES, "exits.2.norm.weight": (D,)}, "`exits.safetensors` has an unknown tensor `exits.2.norm.weight`"),
    ({**SHAPES, "exits.4.norm.weight": (9,)}, "tensor `exits.4.norm.weight` must have shape [8], not [9]"),
    ({**SHAPES, "exits.4.head.weight": (D, 3)}, "tensor `exits.4.head.weight` must have shape [3, 8], not [8, 3]"),
    ({**SHAPES, "exits.4.other.bias": (1, 1)}, "tensor `exits.4.other.bias` must have shape [1], not [1, 1]"),
    (
        {**SHAPES, "exits.4.adapter.down_proj.weight": (D, 6)},
        "tensor `exits.4.adapter.down_proj.weight` must have shape [8, 5], not [8, 6]",
    ),
]


@pytest.mark.parametrize(("shapes", "message"), TENSORS)
def test_tensors_must_be_those_the_exits_name(tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(PackError) as error:
        read_pack(write(tmp_path, shapes=shapes))
    assert error.value.message == message


def test_calibrations_are_read(tmp_path: Path) -> None:
    entry = calibration(exit={"threshold": {"2": 0.9}})
    expected = Calibration(CalibrationKey(**KEY), 0.02, 0.05, "disagreement", 1000, ExitParams(threshold={2: 0.9}))
    assert read_pack(write(tmp_path, calibrations=[entry])).calibrations == (expected,)


def test_a_folder_without_exits_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        read_pack(str(tmp_path))
    assert error.value.message == f"`{tmp_path}` is not an exit pack: it has no file `exits.json`"


def test_malformed_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"^`exits.json` cannot be read: Expecting property name"):
        read_pack(write(tmp_path, "{"))


def test_a_corrupt_tensor_file_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "exits.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="truncated"):
        read_pack(tmp_path)


CALIBRATIONS: list[tuple[Any, str]] = [
    ({}, "`calibrations` must be a list"),
    ([calibration(), 3], "calibration 2 must be an object, not 3"),
    ([{"key": KEY}], "calibration 1 lacks the key `risk`"),
    ([calibration(key={**KEY, "dtype": "x"})], "`key` of calibration 1 has an unknown key `dtype`"),
    ([calibration(key={**KEY, "model": 3})], "calibration 1: `model` must be a string, not 3"),
    ([calibration(risk=2)], "calibration 1: `risk` must be a number at least 0 and at most 1, not 2"),
    ([calibration(prompts=0)], "calibration 1: `prompts` must be a whole number of at least 1, not 0"),
    ([calibration(exit={"kv": "keep"})], "calibration 1: `kv` cannot be 'keep'"),
    (
        [calibration(exit={"threshold": {"5": 1}})],
        "calibration 1 has a threshold for layer 5, and the exits are at layers [2, 4]",
    ),
]


@pytest.mark.parametrize(("entries", "message"), CALIBRATIONS)
def test_what_calibration_json_cannot_say(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(PackError) as error:
        read_pack(write(tmp_path, calibrations=entries))
    assert error.value.message == message
