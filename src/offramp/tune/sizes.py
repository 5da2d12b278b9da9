"""How much is computed at once: on a CPU few enough numbers to stay in cache, elsewhere enough to fill the device."""

from __future__ import annotations

from typing import NamedTuple

import torch

CPU = torch.device("cpu")


class Sizes(NamedTuple):
    """`tokens`: run side by side, unless a single sequence has more; `exit_logits`: of exit heads, in float32;
    `top_logits`: of the LM head, in the type of products."""

    tokens: int
    exit_logits: int
    top_logits: int


ON_CPU = Sizes(tokens=2**10, exit_logits=2**21, top_logits=2**23)
ELSEWHERE = Sizes(tokens=2**16, exit_logits=2**27, top_logits=2**29)


def sizes(device: torch.device) -> Sizes:
    """Those of a device."""
    return ON_CPU if device.type == "cpu" else ELSEWHERE
