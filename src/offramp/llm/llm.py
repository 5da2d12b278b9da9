"""`LLM`: a model, its exits and an engine behind four verbs: generate, chat, stream, stream_chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, overload

from offramp.config import Batching, EngineConfig
from offramp.engine.costs import CostModel
from offramp.engine.engine import Engine
from offramp.engine.request import StopCheck
from offramp.errors import InvalidParameter
from offramp.exits.calibration import CalibrationKey
from offramp.llm.backend import ExecutorName, choose_backend
from offramp.llm.dial import Dial
from offramp.llm.load import make_executor, resolve_exits
from offramp.llm.measure import measure_costs
from offramp.llm.session import OnProgress, Session, Stream
from offramp.llm.stores import Stores
from offramp.models import Progress, T5Spec, load_any
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

Prompt = str | list[int] | tuple[int, ...]
Message = Mapping[str, Any]


class LLM:
    """A model with exits, ready to generate.

    Args:
        model: an alias (`smollm2-135m`), a folder in Hugging Face form, a hub id, or a `.gguf` file.
        exits: layers at which tokens may leave through the model's own norm and head, or the folder of an exit pack.
            By default two layers, at two thirds and five sixths of the depth; () for none.
        executor: `native` (C++, on the CPU) or `torch` (any device); `auto` is native on the CPU, torch elsewhere.
        dtype: of the weights. Native: `int8` (default), `int4`, `float32`, `float16` or `bfloat16`; torch: `float32`
            (default), `bfloat16` or `float64`.
        kv_dtype: of K and V. Native: `float16` (default) or `float32`; torch: that of the weights.
        device: `cpu`, or a torch device; `cuda` has been tested on one GPU, `mps` never.
        threads: threads for computing; None is one per core (native) or torch's own choice.
        block_size: tokens in a block of the paged store.
        kv_tokens, source_tokens: tokens the paged store holds, and those the store of an encoder's sources does; by
            default about 1 GiB of both together.
        max_model_len: the longest prompt with its output; by default the model's own, at most 8192.
        max_source_len: the longest source of a model with an encoder; by default 2048, like its longest output.
        max_num_seqs, max_num_batched_tokens, max_queue, batching, prefix_caching, profitability: see `EngineConfig`.
        trace: record exit tests and write them to this file, one JSON line per output (`offramp.engine.trace`).
        progress: told about downloads.

    Raises:
        OfframpError: the model, its weights, its tokenizer or its exits cannot be had, with the reason.
    """

    def __init__(
        self,
        model: str = "smollm2-135m",
        *,
        exits: Sequence[int] | str | Path | None = None,
        executor: ExecutorName = "auto",
        dtype: str = "auto",
        kv_dtype: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        block_size: int = 16,
        kv_tokens: int | None = None,
        source_tokens: int | None = None,
        max_model_len: int | None = None,
        max_source_len: int | None = None,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 512,
        max_queue: int | None = None,
        batching: Batching = "depth",
        prefix_caching: bool = True,
        profitability: bool = True,
        trace: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        config = EngineConfig(
            batching=batching,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_queue=max_queue,
            prefix_caching=prefix_caching,
            profitability=profitability,
        )
        loaded = load_any(model, progress)
        self.backend = backend = choose_backend(executor, device, dtype, kv_dtype)
        self.name, self.spec, self.tokenizer = loaded.name, loaded.spec, loaded.tokenizer
        self.pack = resolve_exits(exits, loaded)
        stores = Stores(loaded.spec, self.pack, backend).sizes(
            max_model_len=max_model_len,
            max_source_len=max_source_len,
            kv_tokens=kv_tokens,
            source_tokens=source_tokens,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
        )
        runner = make_executor(loaded, self.pack, backend, block_size=block_size, stores=stores, threads=threads)
        key = CalibrationKey(
            loaded.identity, self.pack.identity, None, backend.executor, backend.dtype, backend.kv_dtype
        )
        costs = CostModel.from_layers(runner.shape.layers_at)
        measure_costs(runner, costs)
        self.session = Session(runner, config, costs, self.tokenizer, self.pack, key, trace)

    @property
    def engine(self) -> Engine:
        """The engine underneath, for those who need its plans, costs or measured time. `session` is for those who step
        it themselves.
        """
        return self.session.engine

    @property
    def has_encoder(self) -> bool:
        """Whether prompts are sources, from which outputs are made."""
        return self.engine.executor.shape.encoder is not None

    def longest_prompt(self, max_tokens: int) -> int:
        """Tokens of the longest prompt after which so many may be generated."""
        shape = self.engine.executor.shape
        return shape.max_model_len - max_tokens if shape.encoder is None else shape.encoder.max_source_len

    @property
    def calibration_key(self) -> CalibrationKey:
        """What a calibration must have been measured on to hold here, under any KV policy."""
        return self.session.key

    # Verbs

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a Sequence[str], too
        self,
        prompts: str,
        sampling: SamplingParams | None = ...,
        exit: Dial = ...,
        *,
        on_progress: OnProgress | None = ...,
    ) -> Output: ...

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = ...,
        exit: Dial | Sequence[Dial] = ...,
        *,
        on_progress: OnProgress | None = ...,
    ) -> list[Output]: ...

    def generate(
        self,
        prompts: str | Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        exit: Dial | Sequence[Dial] = "off",
        *,
        on_progress: OnProgress | None = None,
    ) -> Output | list[Output]:
        """Generate for one prompt, or for a list of prompts (texts or token id lists).

        Where the model has an encoder, a prompt is the source that it reads, and the output is made from that.

        Args:
            sampling, exit: for all prompts, or one per prompt. `exit` is "off", "lossless", a risk for which the
                exit pack has a calibration, such as 0.02 or "task:0.02", or ExitParams.
            on_progress: told after every step.

        Returns:
            One `Output` for one prompt, a list for a list. Where `sampling.n` > 1, `Output.alternatives` has the rest.

        Raises:
            InvalidParameter, Unsupported, CacheTooSmall, PackError: a request that cannot be served, before any starts.
        """
        several: Sequence[Prompt] = [prompts] if isinstance(prompts, str) else prompts
        outputs = self.session.run([self._encode(p) for p in several], sampling, exit, on_progress)
        return outputs[0] if isinstance(prompts, str) else outputs

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        sampling: SamplingParams | None = ...,
        exit: Dial = ...,
        *,
        on_progress: OnProgress | None = ...,
    ) -> Output: ...

    @overload
    def chat(
        self,
        messages: Sequence[Sequence[Message]],
        sampling: SamplingParams | Sequence[SamplingParams] | None = ...,
        exit: Dial | Sequence[Dial] = ...,
        *,
        on_progress: OnProgress | None = ...,
    ) -> list[Output]: ...

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        exit: Dial | Sequence[Dial] = "off",
        *,
        on_progress: OnProgress | None = None,
    ) -> Output | list[Output]:
        """Answer one conversation, [{"role": ..., "content": ...}, ...], or a list of them. As `generate` otherwise."""
        one = not messages or isinstance(messages[0], Mapping)
        several = cast("Sequence[Sequence[Message]]", [messages] if one else messages)
        outputs = self.session.run([self._encode_chat(m) for m in several], sampling, exit, on_progress)
        return outputs[0] if one else outputs

    def stream(
        self,
        prompt: Prompt,
        sampling: SamplingParams | None = None,
        exit: Dial = "off",
        stop_check: StopCheck | None = None,
    ) -> Stream:
        """Generate for one prompt, piece by piece; the last chunk carries the whole `Output`. n must be 1.

        `stop_check` is called with every token of the output in order; where it is true the output ends, its reason
        being `stop`. Leaving the iterator early cancels the request.
        """
        return self.session.stream(self._encode(prompt), sampling or SamplingParams(), exit, stop_check)

    def stream_chat(
        self, messages: Sequence[Message], sampling: SamplingParams | None = None, exit: Dial = "off"
    ) -> Stream:
        """Answer one conversation, piece by piece. As `stream` otherwise."""
        return self.session.stream(self._encode_chat(messages), sampling or SamplingParams(), exit)

    def inspect(self) -> dict[str, Any]:
        """Segments, exits, measured costs (seconds for a call with 1 and with 8 rows), and the time spent so far."""
        shape, costs = self.engine.executor.shape, self.engine.costs
        layers = shape.layers_at
        return {
            "executor": self.backend.executor,
            "weights": self.backend.dtype,
            "kv": self.backend.kv_dtype,
            "layers": shape.num_layers,
            "hidden_size": self.spec.hidden_size,
            "vocab_size": shape.vocab_size,
            "context": shape.max_model_len,
            "kv_tokens": shape.num_blocks * shape.block_size,
            **self._inspect_encoder(),
            "exits": list(shape.exit_layers),
            "segments": [
                {"segment": s, "layers": [layers[s] + 1, layers[s + 1]], **_prices(line.price)}
                for s, line in enumerate(costs.segments)
            ],
            "checks": [
                {"at": layers[k], "exit": k < len(costs.checks), **_prices(line.price)}
                for k, line in enumerate(costs.checks, start=1)
            ],
            "fills": [{"from": layers[k], **_prices(line.price)} for k, line in enumerate(costs.passes, start=1)],
            "seconds_spent": asdict(self.engine.meter.time),
        }

    def _inspect_encoder(self) -> dict[str, Any]:
        shape = self.engine.executor.shape
        if shape.encoder is None or not isinstance(self.spec, T5Spec):
            return {}
        price = self.engine.costs.encoder.price
        return {
            "encoder_layers": self.spec.num_encoder_layers,
            "longest_source": shape.encoder.max_source_len,
            "source_tokens": shape.encoder.num_blocks * shape.block_size,
            "sources": [{"tokens": count, "seconds": price(count)} for count in (32, 128, 512)],
        }

    def close(self) -> None:
        """End everything that runs and close the trace. May be called twice."""
        self.session.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if not isinstance(prompt, list | tuple):
            raise InvalidParameter(f"a prompt must be text or a list of token ids, not {prompt!r}", param="prompt")
        return list(prompt)

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode(self.tokenizer.apply_chat_template(messages), add_special_tokens=False)


def _prices(price: Callable[[float], float]) -> dict[str, float]:
    return {"seconds_1_row": price(1), "seconds_8_rows": price(8)}
