"""A source must hold the model's tensors, of the right shapes, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.errors import WeightsError
from offramp.models import check_tensors, expected_tensors, spec_from_hf
from offramp.models.spec import FAMILIES
from tests.models.toys import config, save_model


class Shapes:
    """A source of which only the shapes exist."""

    files = (Path("toy.gguf"),)

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def load(self, name: str) -> np.ndarray:
        return np.zeros(self._shapes[name], np.float32)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_expected_tensors_are_those_of_the_transformers_model(tmp_path: Path, family: str, tied: bool) -> None:
    switches = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    model = save_model(tmp_path, family, tie_word_embeddings=tied, **switches)
    stored = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if tied:
        del stored["lm_head.weight"]
    assert expected_tensors(spec_from_hf(model.config.to_dict())) == stored


TIED = spec_from_hf(config(tie_word_embeddings=True).to_dict())


@pytest.mark.parametrize("extra", ["lm_head.weight", "model.layers.1.self_attn.rotary_emb.inv_freq"])
def test_harmless_extras_are_let_through(extra: str) -> None:
    source = Shapes({**expected_tensors(TIED), extra: (2,)})
    check_tensors(TIED, source)
    assert extra in source.shapes()


def refusal(shapes: Mapping[str, Any]) -> str:
    with pytest.raises(WeightsError) as caught:
        check_tensors(TIED, Shapes(shapes))
    return caught.value.message


def test_missing_tensors_are_named() -> None:
    shapes = expected_tensors(TIED)
    del shapes["model.norm.weight"], shapes["model.layers.1.mlp.up_proj.weight"]
    assert refusal(shapes) == (
        "`toy.gguf` lacks tensors of the model: `model.layers.1.mlp.up_proj.weight`, `model.norm.weight`"
    )


def test_a_long_list_is_cut_short() -> None:
    assert refusal({}).endswith("`model.layers.0.self_attn.k_proj.weight` and 15 more")


def test_a_misshapen_tensor_is_named() -> None:
    shapes = {**expected_tensors(TIED), "model.norm.weight": (8,)}
    assert refusal(shapes) == "tensor `model.norm.weight` in `toy.gguf` has shape [8]; the model needs [16]"


def test_unknown_tensors_are_named() -> None:
    shapes = {**expected_tensors(TIED), "blk.0.ffn_gate_inp.weight": (2,)}
    assert refusal(shapes) == "`toy.gguf` holds tensors that the model has no place for: `blk.0.ffn_gate_inp.weight`"
