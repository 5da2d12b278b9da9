"""Work that is the same again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Replay:
    """Calls a function whose tensors are the same ones each time, only with other contents.

    On CUDA its kernels are recorded at the first call and then launched all at once (CUDA graphs): a layer has some
    fifty, and to launch them one by one takes longer than they do.

    Args:
        call: the function; its result must be read before the next call.
        device: where it computes.
        pool: memory that functions share of which never two run at once; of `torch.cuda.graph_pool_handle`.
    """

    def __init__(self, call: Callable[[], Tensor], device: torch.device, pool: Any) -> None:
        self._call, self._pool, self._records = call, pool, device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def __call__(self) -> Tensor:
        """What the function gives now."""
        if not self._records:
            return self._call()
        if self._graph is None:
            self._record()
        assert self._graph is not None and self._result is not None
        self._graph.replay()
        return self._result

    def _record(self) -> None:
        """Libraries must have set themselves up before, so it runs once unrecorded, beside the stream in use."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._call()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=self._pool):
            self._result = self._call()
