"""Worker for offramp itself: the engine under `LLM`, exits off, no prefix cache. Nothing is detokenised."""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter
from typing import Any

from worker_loop import Missing, engine_module, serve  # type: ignore[import-not-found]  # found beside the script

WARM_TOKENS = 2


class Offramp:
    """An `LLM` that holds the model in the precision asked for."""

    def load(self, model: dict[str, Any], precision: str, threads: int, context: int) -> dict[str, Any]:
        """Load the model with its default exits, which are not used."""
        offramp, import_seconds = engine_module("offramp")
        self.types = engine_module("offramp.engine.request")[0]
        self.executor_types = engine_module("offramp.types.executor")[0]
        self.sampling = offramp.SamplingParams
        precision, _, variant = precision.partition("@")
        if variant and variant != "torch":
            os.environ["OFFRAMP_ISA"] = variant
        start = perf_counter()
        self.llm = offramp.LLM(
            model["path"],
            executor="torch" if variant == "torch" else "native",
            dtype=precision,
            threads=threads,
            kv_tokens=model["max_batch"] * (-(-context // 16) * 16 + 16),
            max_num_seqs=max(32, model["max_batch"]),
            max_num_batched_tokens=max(512, model["max_batch"]),
            prefix_caching=False,
            **({"exits": model["exits"]} if model.get("exits") is not None else {}),
        )
        seconds = perf_counter() - start
        if variant == "torch":
            self.native, isa = None, engine_module("torch")[0].backends.cpu.get_cpu_capability()
        else:
            self.native = engine_module("offramp._native")[0]
            isa = self.native.isa()
        return {
            "version": f"offramp {offramp.__version__}",
            "route": f"engine, exits off, {type(self.llm.engine.executor).__name__}",
            "isa": isa,
            "import_seconds": import_seconds,
            "load_seconds": seconds,
        }

    def decode(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """Time tokens from the moment every sequence has its first ones until `new_tokens` each have come."""
        engine = self.llm.engine
        sampling = self.sampling(max_tokens=2 * new_tokens + WARM_TOKENS + len(prompts), ignore_eos=True)
        numbers = [engine.submit(self._request(prompt, sampling))[0] for prompt in prompts]
        waiting = set(numbers)
        try:
            while waiting:
                waiting -= {e.sequence for e in engine.step().events if e.output_index + 1 >= WARM_TOKENS}
            tokens, start = 0, perf_counter()
            while tokens < new_tokens * len(prompts):
                tokens += len(engine.step().events)
            return {"tokens": tokens, "seconds": perf_counter() - start}
        finally:
            for number in numbers:
                engine.abort(number)
                engine.forget(number)

    def generate(self, prompts: list[list[int]], new_tokens: int, users: int, exit: str) -> dict[str, Any]:
        """Time whole answers with their texts, `users` at a time: as soon as one ends, the next prompt begins."""
        session, sampling = self.llm.session, self.sampling(max_tokens=new_tokens, ignore_eos=True)
        texts, tokens = [""] * len(prompts), 0
        running: dict[int, int] = {}
        waiting = list(enumerate(prompts))
        start = perf_counter()
        try:
            while running or waiting:
                while waiting and len(running) < users:
                    index, prompt = waiting.pop(0)
                    running[session.submit(prompt, sampling, exit)[0]] = index
                result = session.step()
                for number in {e.sequence for e in (*result.events, *result.finished)}:
                    chunk = session.read(number)
                    texts[running[number]] += chunk.text
                    tokens += len(chunk.token_ids)
                    if chunk.finish_reason is not None:
                        session.drop(number)
                        del running[number]
            return {"tokens": tokens, "seconds": perf_counter() - start, "texts": texts}
        finally:
            for number in running:
                session.drop(number)

    def prefill(self, prompt: list[int]) -> dict[str, Any]:
        """Time a prompt up to its first token."""
        engine = self.llm.engine
        start = perf_counter()
        number = engine.submit(self._request(prompt, self.sampling(max_tokens=1, ignore_eos=True)))[0]
        while not engine.step().finished:
            pass
        seconds = perf_counter() - start
        engine.forget(number)
        return {"tokens": len(prompt), "seconds": seconds}

    def _request(self, prompt: list[int], sampling: Any) -> Any:
        """Of a prompt, which is what an encoder reads where there is one."""
        encodes = self.llm.engine.executor.shape.encoder is not None
        return self.types.Request(() if encodes else prompt, sampling, source=prompt if encodes else ())

    def steps(self, prompt: list[int], rows: int, count: int) -> dict[str, Any]:
        """The median time of a step that takes `rows` tokens of one sequence to the top and scores them all."""
        executor, top = self.llm.engine.executor, self.llm.engine.executor.shape.num_segments
        length = len(prompt)
        blocks = list(range(-(-(length + rows) // executor.shape.block_size)))
        before = self.executor_types.SeqRows(range(length), prompt, blocks)
        batch = [self.executor_types.SeqRows(range(length, length + rows), prompt[:rows], blocks)]
        scored = [
            self.executor_types.ScoreRow(position, blocks, self.sampling(), 0)
            for position in range(length, length + rows)
        ]
        for segment in range(top):
            executor.run_segment(segment, [before])
        times = []
        for _ in range(count):
            executor.synchronize()
            start = perf_counter()
            for segment in range(top):
                executor.run_segment(segment, batch)
            executor.score(top, scored, frozenset())
            executor.synchronize()
            times.append(perf_counter() - start)
        return {"tokens": rows, "seconds": median(times)}

    def ceilings(self, threads: int) -> dict[str, Any]:
        """What this machine can do: GB/s read beyond the caches, GFLOP/s of multiply-adds, GOP/s of integer dots."""
        if self.native is None:
            raise Missing("ceilings are measured by the native core")
        return {
            "gb_per_s": self.native.measure_bandwidth(threads),
            "gflop_per_s": self.native.measure_fma(threads),
            "integer_gop_per_s": self.native.measure_int8(threads),
        }


if __name__ == "__main__":
    serve(Offramp())
