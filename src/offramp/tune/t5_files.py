"""A T5's folder in Hugging Face form: read to go on with, and written, with weights in float16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.errors import ModelNotFound, WeightsError
from offramp.exits.write import replace_file
from offramp.tune.t5_shape import END, PAD, T5Shape, shape_of_config, tensor_shapes
from offramp.tune.t5_tokenizer import write_tokenizer
from offramp.weights.eight_bits import half
from offramp.weights.folder import SafetensorsWeights
from offramp.weights.safetensors import safetensors_bytes


def read_t5(folder: Path) -> tuple[T5Shape, dict[str, Tensor]]:
    """Shape and weights, float32, of the T5 in a folder.

    Raises:
        ModelNotFound: there is no model.
        Unsupported: it is no T5, or one that cannot be trained here.
        WeightsError: the files are corrupt, or do not fit together.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFound(
            f"`{folder}` is no folder of a T5: it has no config.json", hint="leave it out for a new one"
        )
    try:
        config: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise WeightsError(f"`{path}` is not JSON") from error
    shape, source = shape_of_config(config), SafetensorsWeights(folder)
    there = source.shapes()
    for name, wanted in tensor_shapes(shape).items():
        if there.get(name) != wanted:
            raise WeightsError(f"`{folder}` must have a tensor `{name}` of shape {wanted}, not {there.get(name)}")
    return shape, {name: torch.tensor(np.array(source.load(name))).float() for name in tensor_shapes(shape)}


def write_t5(folder: Path, shape: T5Shape, weights: Mapping[str, Tensor], tokenizer: bytes) -> None:
    """Write a model and its tokenizer.

    Raises:
        WeightsError: a weight that float16 cannot hold: the training has diverged.
    """
    arrays = {name: half(name, tensor.detach().cpu().numpy()) for name, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "model.safetensors", safetensors_bytes(arrays))
    generation = {"decoder_start_token_id": PAD, "eos_token_id": END, "pad_token_id": PAD}
    replace_file(folder / "generation_config.json", json.dumps(generation, indent=1).encode())
    write_tokenizer(folder, tokenizer)
    replace_file(folder / "config.json", json.dumps(shape.config(), indent=1).encode())
