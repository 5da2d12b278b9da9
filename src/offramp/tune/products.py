"""The type in which training multiplies matrices."""

from __future__ import annotations

import torch


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, but float32 on a CPU without AVX-512, for which torch has no fast products in bfloat16: with AVX2 they
    take 50 times as long as in float32."""
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return torch.float32
    return torch.bfloat16
