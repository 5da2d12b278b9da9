"""A trunk adapter in training (LoRA, Hu et al. 2021): factors by their names in `trunk.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from offramp.exits.trunk import LINEAR
from offramp.tune.sizes import CPU


def linear_names(num_layers: int) -> list[str]:
    """All matrices that are changed."""
    return [f"model.layers.{i}.{linear}_proj.weight" for i in range(num_layers) for linear in LINEAR]


def new_factors(
    shapes: Mapping[str, tuple[int, ...]], num_layers: int, rank: int, seed: int, device: torch.device = CPU
) -> dict[str, Tensor]:
    """Factors before training, in float32: A random, with rows of length 1 on average; B zero, so nothing changes yet.

    `shapes` are those of the model's matrices, [rows, columns].
    """
    random = torch.Generator().manual_seed(seed)
    factors: dict[str, Tensor] = {}
    for name in linear_names(num_layers):
        rows, columns = shapes[name]
        factors[f"{name}.lora_a"] = torch.randn((rank, columns), generator=random) / columns**0.5
        factors[f"{name}.lora_b"] = torch.zeros((rows, rank))
    return {name: factor.to(device).requires_grad_() for name, factor in factors.items()}
