"""What cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp import LLM, OfframpError
from offramp.exits.pack import Base, ExitSpec
from offramp.exits.write import write_pack
from offramp.models import load_model
from tests.models.toys import save_model

CHANGED = "model.layers.0.mlp.down_proj.weight"


def test_int4_holds_no_trunk_that_was_tuned(tmp_path: Path) -> None:
    save_model(tmp_path / "toy", num_hidden_layers=4)
    spec = load_model(str(tmp_path / "toy")).spec
    trunk = {
        f"{CHANGED}.lora_a": np.ones((2, spec.intermediate_size)),
        f"{CHANGED}.lora_b": np.ones((spec.hidden_size, 2)),
    }
    write_pack(tmp_path / "pack", Base(4, spec.hidden_size, spec.vocab_size), [ExitSpec(1)], {}, trunk=trunk)
    with pytest.raises(OfframpError) as error:
        LLM(str(tmp_path / "toy"), exits=tmp_path / "pack", dtype="int4")
    assert error.value.message == (
        "the exit pack changes the model's own layers, and that change is finer than the steps of int4"
    )
    assert error.value.hint == "use another `dtype`, such as int8, or another pack"
