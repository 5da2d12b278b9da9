"""Worker for OpenVINO GenAI: its continuous batching pipeline, stepped by hand, over a GGUF file it converts itself."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from worker_loop import Missing, engine_module, serve  # type: ignore[import-not-found]  # found beside the script

SPARE_TOKENS = 8


class OpenVino:
    """A pipeline that holds the model in the precision asked for."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        """Load the GGUF file of this precision. `context` is not needed: the KV cache grows."""
        if precision not in model["gguf"]:
            raise Missing(f"there is no {precision} file of the model: OpenVINO needs a GGUF model to start from")
        self.openvino, openvino_seconds = engine_module("openvino")
        self.genai, import_seconds = engine_module("openvino_genai")
        start = perf_counter()
        scheduler = self.genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = max(model["max_batch"], 1)
        scheduler.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": threads}
        path = str(Path(model["gguf"][precision]))
        self.pipe = self.genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
        core = self.openvino.Core()
        return {
            "version": f"openvino-genai {self.genai.__version__.split('-')[0]}",
            "route": "continuous batching pipeline, stepped",
            "isa": "own choice; computes in " + core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string(),
            "import_seconds": openvino_seconds + import_seconds,
            "load_seconds": perf_counter() - start,
        }

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Prefill, then time `new_tokens` steps of the whole batch."""
        self._start(prompts, new_tokens + SPARE_TOKENS)
        start = perf_counter()
        for _ in range(new_tokens):
            self.pipe.step()
        seconds = perf_counter() - start
        self._drain()
        return {"tokens": new_tokens * len(prompts), "seconds": seconds}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        start = perf_counter()
        self._start([prompt], 1)
        seconds = perf_counter() - start
        self._drain()
        return {"tokens": len(prompt), "seconds": seconds}

    def _start(self, prompts: list[list[int]], new_tokens: int) -> None:
        import numpy as np

        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        tensors = [self.openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        self.handles = [self.pipe.add_request(i, tensor, config) for i, tensor in enumerate(tensors)]
        while not all(handle.can_read() for handle in self.handles):
            self.pipe.step()

    def _drain(self) -> None:
        while self.pipe.has_non_finished_requests():
            self.pipe.step()


if __name__ == "__main__":
    serve(OpenVino())
