"""Relative position buckets (Raffel et al. 2020, T5): a bias of attention is learnt for each range of distances."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def relative_buckets(num_buckets: int, max_distance: int, *, bidirectional: bool) -> npt.NDArray[np.int64]:
    """The buckets of offsets from -`max_distance` to `max_distance`, key position less query position: [2
    max_distance + 1].

    What is farther away is in the bucket of the last offset on its side. Half of the buckets are for single distances,
    the others for ranges that grow with the logarithm of the distance. Where attention is not `bidirectional`, keys
    that come later share bucket 0 with the query itself. Logarithms are in float32, as in the code that trained the
    models, because some distances fall on the edge of a range.
    """
    offsets = np.arange(-max_distance, max_distance + 1)
    side = num_buckets // 2 if bidirectional else num_buckets
    distance = np.abs(offsets) if bidirectional else np.maximum(-offsets, 0)
    exact = side // 2
    far = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    steps = far / np.float32(math.log(max_distance / exact)) * np.float32(side - exact)
    ranges = np.minimum(exact + steps.astype(np.int64), side - 1)
    return np.where(distance < exact, distance, ranges) + np.where(bidirectional & (offsets > 0), side, 0)
