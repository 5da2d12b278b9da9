"""Worker for vLLM on the CPU: its engine, stepped by hand in this process, eager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from worker_loop import engine_module, serve  # type: ignore[import-not-found]  # found beside the script

KV_GIB = "1"


class Vllm:
    """An engine that holds the model in the precision asked for."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        """Load a folder in Hugging Face form; a GGUF file is dequantised into one first, which is not timed."""
        # One process, so that its memory and its steps can be seen; a small KV cache; threads pinned as vLLM does.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = KV_GIB
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        folder = _folder(model)
        vllm, import_seconds = engine_module("vllm")
        start = perf_counter()
        self.vllm = vllm
        self.engine = vllm.LLM(
            str(folder),
            dtype=precision,
            max_model_len=context,
            max_num_seqs=max(model["max_batch"], 1),
            enforce_eager=True,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
        ).llm_engine
        self.count = 0
        return {
            "version": f"vllm {vllm.__version__}",
            "route": "engine, stepped, eager",
            "isa": engine_module("torch")[0].backends.cpu.get_cpu_capability(),
            "import_seconds": import_seconds,
            "load_seconds": perf_counter() - start,
        }

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Time tokens from the moment every sequence has its first one until `new_tokens` each have come."""
        names = self._submit(prompts, 2 * new_tokens + len(prompts))
        lengths = dict.fromkeys(names, 0)
        while not all(lengths.values()):
            self._step(lengths)
        before, start = sum(lengths.values()), perf_counter()
        while sum(lengths.values()) - before < new_tokens * len(prompts):
            self._step(lengths)
        seconds = perf_counter() - start
        self.engine.abort_request(names)
        while self.engine.has_unfinished_requests():
            self.engine.step()
        return {"tokens": sum(lengths.values()) - before, "seconds": seconds}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        start = perf_counter()
        self._submit([prompt], 1)
        while self.engine.has_unfinished_requests():
            self.engine.step()
        return {"tokens": len(prompt), "seconds": perf_counter() - start}

    def _submit(self, prompts: list[list[int]], max_tokens: int) -> list[str]:
        params = self.vllm.SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        names = []
        for prompt in prompts:
            self.count += 1
            names.append(str(self.count))
            self.engine.add_request(names[-1], {"prompt_token_ids": prompt}, params)
        return names

    def _step(self, lengths: dict[str, int]) -> None:
        for output in self.engine.step():
            lengths[output.request_id] = len(output.outputs[0].token_ids)


def _folder(model: dict[str, Any]) -> Path:
    if model["form"] != "gguf":
        return Path(model["plain"])
    folder = Path(model["folder"])
    if not (folder / "tokenizer.json").is_file():
        # Under the final name there is a whole model or nothing. Older versions of this left the tokenizer out.
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            # In a process of its own, so that its memory is not counted as vLLM's.
            subprocess.run([sys.executable, __file__, model["path"], str(draft)], check=True, stdout=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def dequantize(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as a folder in Hugging Face form, float32, with its tokenizer."""
    transformers, _ = engine_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # It holds plain numbers now; what it says about where they came from keeps it from being saved.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--folder"]:
        _folder(json.loads(sys.argv[2]))
    elif len(sys.argv) > 1:
        dequantize(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        serve(Vllm())
