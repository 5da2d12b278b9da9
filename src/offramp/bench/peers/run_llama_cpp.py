"""Worker for llama.cpp, through its C interface: `llama_decode` over a static batch, as `llama-batched-bench` does.

The library is the one inside `xllamacpp` or `llama-cpp-python`. Tokens are chosen greedily; nothing is detokenised.
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from worker_loop import Missing, engine_module, serve  # type: ignore[import-not-found]  # found beside the script

N_BATCH, N_UBATCH = 2048, 512
VECTORS = ("AVX", "AMX", "FMA", "F16C", "NEON", "SVE", "DOTPROD", "MATMUL")
DEFAULTS = [512, 2048, 512, 1]
"""What llama_context_default_params() has first: n_ctx, n_batch, n_ubatch, n_seq_max."""


class Params(ctypes.Structure):
    """Parameters of a model or a context: larger than either; only their start need be known."""

    _fields_ = [("words", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def open_library() -> tuple[Any, str, float]:
    """The library, the package it came in, and the seconds that importing took.

    Raises:
        Missing: neither package is here.
    """
    reasons = []
    for package, module_name in (("xllamacpp", "xllamacpp.xllamacpp"), ("llama-cpp-python", "llama_cpp")):
        try:
            module, seconds = engine_module(module_name)
        except Missing as error:
            reasons.append(str(error))
            continue
        path = Path(module.__file__)
        if package == "llama-cpp-python":
            path = next(iter((path.parent / "lib").glob("libllama.*")), path)
        return ctypes.CDLL(str(path)), f"{package} {version(package)}", seconds
    raise Missing("; ".join(reasons))


def declare(lib: Any) -> None:
    """Say what the functions take and return, and check that parameters look as they are used here.

    Raises:
        Missing: a function is not exported, or the parameters begin otherwise.
    """
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_backend_init": (None, []),
        "llama_print_system_info": (ctypes.c_char_p, []),
        "llama_model_default_params": (Params, []),
        "llama_context_default_params": (Params, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, Params]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_n_tokens": (integer, [pointer]),
        "llama_init_from_model": (pointer, [pointer, Params]),
        "llama_set_n_threads": (None, [pointer, integer, integer]),
        "llama_free": (None, [pointer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_batch_init": (Batch, [integer, integer, integer]),
        "llama_batch_free": (None, [Batch]),
        "llama_decode": (integer, [pointer, Batch]),
        "llama_get_logits_ith": (pointer, [pointer, integer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name, None)
        if function is None:
            raise Missing(f"this build of llama.cpp does not export `{name}`")
        function.restype, function.argtypes = result, arguments
    found = list(lib.llama_context_default_params().words)[: len(DEFAULTS)]
    if found != DEFAULTS:
        raise Missing(f"this version of llama.cpp has other context parameters: {found}, not {DEFAULTS}")


class LlamaCpp:
    """A model, and one context per batch size asked for, one at a time."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        """Load the GGUF file of this precision. `context` is the room a sequence gets."""
        if precision not in model["gguf"]:
            raise Missing(f"there is no {precision} file of the model: llama.cpp needs a GGUF model to start from")
        self.lib, package, import_seconds = open_library()
        declare(self.lib)
        self.threads, self.room = threads, -(-context // 256) * 256
        start = perf_counter()
        self.lib.llama_backend_init()
        path = str(model["gguf"][precision]).encode()
        self.model = self.lib.llama_model_load_from_file(path, self.lib.llama_model_default_params())
        if not self.model:
            raise Missing(f"llama.cpp cannot load `{model['gguf'][precision]}`")
        self.vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        self.context, self.batch_size = None, 0
        self._open(1)
        self.batch = self.lib.llama_batch_init(N_BATCH, 0, 1)
        return {
            "version": package,
            "route": "C interface, static batch",
            "isa": self._isa(),
            "import_seconds": import_seconds,
            "load_seconds": perf_counter() - start,
        }

    def _isa(self) -> str:
        """Vector instructions that this build uses, from lines such as `CPU : AVX2 = 1 | FMA = 1 |`."""
        parts = self.lib.llama_print_system_info().decode().replace(":", "|").split("|")
        used = [part.split("=")[0].strip() for part in parts if part.strip().endswith("= 1")]
        return " ".join(name for name in used if name.startswith(VECTORS))

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Prefill, then time `new_tokens` steps of the whole batch."""
        self._open(len(prompts))
        latest = self._prompts(prompts)
        position = len(prompts[0])
        start = perf_counter()
        for step in range(new_tokens):
            for row, token in enumerate(latest):
                self._row(row, token, position + step, row, True)
            self._decode(len(latest))
            latest = [self._best(row) for row in range(len(latest))]
        return {"tokens": new_tokens * len(prompts), "seconds": perf_counter() - start}

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        self._open(1)
        start = perf_counter()
        self._prompts([prompt])
        return {"tokens": len(prompt), "seconds": perf_counter() - start}

    def _open(self, sequences: int) -> None:
        if sequences != self.batch_size:
            if self.context:
                self.lib.llama_free(self.context)
            params = self.lib.llama_context_default_params()
            params.words[0:4] = [sequences * self.room, N_BATCH, N_UBATCH, sequences]
            self.context = self.lib.llama_init_from_model(self.model, params)
            if not self.context:
                raise Missing(f"llama.cpp cannot make a context for {sequences} sequences")
            self.lib.llama_set_n_threads(self.context, self.threads, self.threads)
            self.batch_size = sequences
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)

    def _prompts(self, prompts: list[list[int]]) -> list[int]:
        rows = [
            (row, token, position, position + 1 == len(prompt))
            for row, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        chosen = []
        for first in range(0, len(rows), N_BATCH):
            chunk = rows[first : first + N_BATCH]
            for place, (row, token, position, last) in enumerate(chunk):
                self._row(place, token, position, row, last)
            self._decode(len(chunk))
            chosen += [self._best(place) for place, (*_, last) in enumerate(chunk) if last]
        return chosen

    def _row(self, place: int, token: int, position: int, sequence: int, wanted: bool) -> None:
        batch = self.batch
        batch.token[place], batch.pos[place] = token, position
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
        batch.logits[place] = wanted

    def _decode(self, rows: int) -> None:
        self.batch.n_tokens = rows
        code = self.lib.llama_decode(self.context, self.batch)
        if code:
            raise Missing(f"llama_decode returned {code}")

    def _best(self, place: int) -> int:
        import numpy as np

        address = self.lib.llama_get_logits_ith(self.context, place)
        logits = np.ctypeslib.as_array((ctypes.c_float * self.vocab).from_address(address))
        return int(logits.argmax())


if __name__ == "__main__":
    serve(LlamaCpp())
