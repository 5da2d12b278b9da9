"""Worker for Transformers: a static batch, its KV cache kept between steps, greedy.

An encoder-decoder reads the prompts with its encoder, and its outputs begin with the token that starts them.
"""

from __future__ import annotations

from inspect import signature
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
        path = Path(model["plain"])
        where = {"gguf_file": path.name} if model["form"] == "gguf" else {}
        folder = path.parent if where else path
        dtype, self.transformers, self.start = getattr(self.torch, precision), transformers, model["start"]
        kind = transformers.AutoModelForCausalLM if self.start is None else transformers.AutoModelForSeq2SeqLM
        self.model = kind.from_pretrained(folder, dtype=dtype, **where).eval()
        # Older versions call it `past_key_values`; newer ones warn of that name, call by call.
        self.cache_name = "cache" if "cache" in signature(self.model.forward).parameters else "past_key_values"
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
            latest, state = self._begin(prompts)
            start = perf_counter()
            for _ in range(new_tokens):
                latest = self._step([[token] for token in latest], state)
            return {"tokens": new_tokens * len(prompts), "seconds": perf_counter() - start}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        with self.torch.inference_mode():
            start = perf_counter()
            self._begin([prompt])
            return {"tokens": len(prompt), "seconds": perf_counter() - start}

    def _begin(self, prompts: list[list[int]]) -> tuple[list[int], dict[str, Any]]:
        """The first tokens, and what every call takes from then on."""
        cache = self.transformers.DynamicCache
        if self.start is None:
            state = {self.cache_name: cache(), "logits_to_keep": 1}
            return self._step(prompts, state), state
        both = self.transformers.EncoderDecoderCache(cache(), cache())
        encoded = self.model.get_encoder()(input_ids=self.torch.tensor(prompts))
        state = {self.cache_name: both, "encoder_outputs": encoded}
        return self._step([[self.start]] * len(prompts), state), state

    def _step(self, tokens: list[list[int]], state: dict[str, Any]) -> list[int]:
        reads = "input_ids" if self.start is None else "decoder_input_ids"
        logits = self.model(**{reads: self.torch.tensor(tokens)}, use_cache=True, **state).logits
        chosen: list[int] = logits[:, -1].argmax(-1).tolist()
        return chosen


if __name__ == "__main__":
    serve(Transformers())
