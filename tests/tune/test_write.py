"""Packs that are written and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp.errors import WeightsError
from offramp.exits.pack import Base, ExitSpec
from offramp.exits.read import read_pack
from offramp.exits.write import params_json, write_pack
from offramp.types.exits import ExitParams

BASE = Base(6, 8, 20, "toy", "f" * 64)
EXITS = (ExitSpec(2), ExitSpec(4, "own", "linear", vocabulary="few", other=True, temperature=1.5))


def tensors() -> dict[str, np.ndarray]:
    pick = np.random.default_rng(0)
    shapes = {
        "norm.weight": (8,),
        "adapter.weight": (8, 8),
        "adapter.bias": (8,),
        "other.weight": (1, 8),
        "other.bias": (1,),
    }
    return {f"exits.4.{name}": pick.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_pack_is_read_as_it_was_written(tmp_path: Path) -> None:
    defaults = ExitParams(threshold={2: 0.9, 4: 0.5}, kv="recompute")
    write_pack(
        tmp_path / "pack",
        BASE,
        EXITS,
        tensors(),
        vocabularies={"few": [1, 5, 19]},
        defaults=defaults,
        provenance={"made": [1, 2]},
    )
    pack = read_pack(tmp_path / "pack")
    assert (pack.base, pack.exits, pack.defaults) == (BASE, EXITS, defaults)
    assert (pack.vocabularies, pack.provenance) == ({"few": (1, 5, 19)}, {"made": [1, 2]})
    for name, array in tensors().items():
        np.testing.assert_array_equal(pack.tensor(4, name.removeprefix("exits.4.")), array.astype(np.float16))


def test_writing_again_replaces_everything(tmp_path: Path) -> None:
    write_pack(tmp_path, BASE, EXITS, tensors(), vocabularies={"few": [1, 5, 19]})
    write_pack(tmp_path, BASE, EXITS[:1], {})
    assert read_pack(tmp_path).exits == EXITS[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["exits.json"]


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e6])
def test_numbers_that_float16_cannot_hold_are_refused(tmp_path: Path, number: float) -> None:
    bad = {**tensors(), "exits.4.adapter.bias": np.full(8, number, np.float32)}
    with pytest.raises(WeightsError) as error:
        write_pack(tmp_path, BASE, EXITS, bad, vocabularies={"few": [1, 5, 19]})
    assert error.value.message == "tensor `exits.4.adapter.bias` holds a number that float16 cannot"
    assert not (tmp_path / "exits.json").exists()


def test_exit_parameters_say_only_what_differs() -> None:
    assert params_json(ExitParams()) == {}
    assert params_json(ExitParams(threshold={4: 0.5}, max_draft=2)) == {"threshold": {"4": 0.5}, "max_draft": 2}
