"""Worker for Transformers: a static batch, its KV cache kept between steps, greedy."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from worker_loop import engine_module, serve  # type: ignore[import-not-found]  # found beside the script


class Transformers:
    """A model in the precision asked for."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        """Load a folder, or a GGUF file, which Transformers dequantises."""
        self.torch, torch_seconds = engine_module("torch")
        transformers, import_seconds = engine_module("transformers")
        self.torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        start = perf_counter()
        path = Path(model["path"])
        where = {"gguf_file": path.name} if model["form"] == "gguf" else {}
        folder = path.parent if where else path
        dtype = getattr(self.torch, precision)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **where).eval()
        self.cache_type = transformers.DynamicCache
        return {
            "version": f"transformers {transformers.__version__}, torch {self.torch.__version__}",
            "route": "forward calls, static batch, " + self.model.config._attn_implementation,
            "isa": self.torch.backends.cpu.get_cpu_capability(),
            "import_seconds": torch_seconds + import_seconds,
            "load_seconds": perf_counter() - start,
        }

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Prefill, then time `new_tokens` steps of the whole batch."""
        with self.torch.inference_mode():
            cache = self.cache_type()
            latest = self._step(prompts, cache)
            start = perf_counter()
            for _ in range(new_tokens):
                latest = self._step([[token] for token in latest], cache)
            return {"tokens": new_tokens * len(prompts), "seconds": perf_counter() - start}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        with self.torch.inference_mode():
            start = perf_counter()
            self._step([prompt], self.cache_type())
            return {"tokens": len(prompt), "seconds": perf_counter() - start}

    def _step(self, tokens: list[list[int]], cache: Any) -> list[int]:
        ids = self.torch.tensor(tokens)
        logits = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        chosen: list[int] = logits[:, -1].argmax(-1).tolist()
        return chosen


if __name__ == "__main__":
    serve(Transformers())
