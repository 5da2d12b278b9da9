"""Buckets of relative positions against those of Transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from offramp.models import relative_buckets

SETTINGS = ((32, 128), (32, 256), (64, 128), (8, 20), (4, 3), (6, 50))
"""That of published checkpoints first. Where the edge of a range is a whole distance, the last bit of a logarithm
decides, and libraries differ in it: in 7 of 16,000 settings of up to 64 buckets, none of these, a distance moves."""


@pytest.mark.parametrize(("num_buckets", "max_distance"), SETTINGS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_every_offset_is_in_the_bucket_that_transformers_says(
    num_buckets: int, max_distance: int, bidirectional: bool
) -> None:
    offsets = np.arange(-2 * max_distance - 5, 2 * max_distance + 6)
    theirs = T5Attention._relative_position_bucket(torch.from_numpy(offsets), bidirectional, num_buckets, max_distance)
    table = relative_buckets(num_buckets, max_distance, bidirectional=bidirectional)
    assert table.shape == (2 * max_distance + 1,)
    ours = table[offsets.clip(-max_distance, max_distance) + max_distance]
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert (ours.min(), ours.max()) == (0, num_buckets - 1)
