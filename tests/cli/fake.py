"""An `LLM` that answers at once, for tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from offramp.errors import TokenizerError
from offramp.types.exits import ExitParams
from offramp.types.output import Chunk, ExitReport, FinishReason, Output
from offramp.types.sampling import SamplingParams

DEPTH = 6
PIECES = ("Down", " it", " falls")
LAYERS = (6, 2, 4)


class FakeTokenizer:
    """Has a chat template unless told otherwise."""

    def __init__(self) -> None:
        self.has_template = True

    @property
    def chat_template(self) -> object:
        if not self.has_template:
            raise TokenizerError("the model has no chat template")
        return object()


class FakeLLM:
    """Answers everything with `PIECES` and keeps what it was asked. `calls` and `made_with` are shared by tests."""

    def __init__(self, model: str, **arguments: Any) -> None:
        self.made_with = {"model": model, **arguments}
        self.calls: list[tuple[Any, ...]] = []
        self.spec = SimpleNamespace(num_layers=DEPTH)
        self.tokenizer = FakeTokenizer()
        self.has_encoder = False
        self.fails: BaseException | None = None
        self.closed = False
        self.finish_reason: FinishReason = "stop"

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def inspect(self) -> dict[str, Any]:
        prices = {"seconds_1_row": 0.001, "seconds_8_rows": 0.002}
        return {
            "layers": DEPTH,
            "exits": [2, 4],
            "segments": [{"segment": 0, "layers": [1, 2], **prices}],
            "checks": [{"at": 2, "exit": True, **prices}],
            "fills": [{"from": 2, **prices}],
        }

    def generate(self, prompts: list[Any], sampling: SamplingParams, exit: list[Any], *, on_progress: Any) -> list[Any]:
        self.calls.append(("generate", prompts, sampling, exit))
        return self._outputs(prompts, sampling, on_progress)

    def chat(self, messages: list[Any], sampling: SamplingParams, exit: list[Any], *, on_progress: Any) -> list[Any]:
        self.calls.append(("chat", messages, sampling, exit))
        return self._outputs(messages, sampling, on_progress)

    def stream(self, prompt: Any, sampling: SamplingParams, exit: Any) -> Iterator[Chunk]:
        self.calls.append(("stream", prompt, sampling, exit))
        return self._chunks()

    def stream_chat(self, messages: Any, sampling: SamplingParams, exit: Any) -> Iterator[Chunk]:
        self.calls.append(("stream_chat", list(messages), sampling, exit))
        return self._chunks()

    def _outputs(self, prompts: list[Any], sampling: SamplingParams, on_progress: Any) -> list[Any]:
        if self.fails is not None:
            raise self.fails
        on_progress(len(prompts), len(prompts), 3 * len(prompts), 4.0)
        outputs = [[output(i, self.finish_reason) for i in range(sampling.n)] for _ in prompts]
        return [replace(first, alternatives=tuple(rest)) for first, *rest in outputs]

    def _chunks(self) -> Iterator[Chunk]:
        last = len(PIECES) - 1
        for i, (piece, layer) in enumerate(zip(PIECES, LAYERS, strict=True)):
            if self.fails is not None and i == 1:
                raise self.fails
            yield Chunk(piece, (i,), (layer,), (None,), "stop" if i == last else None, output() if i == last else None)


def output(index: int = 0, finish_reason: FinishReason = "stop") -> Output:
    """Three tokens, two of which left early."""
    report = ExitReport(
        depth=DEPTH,
        layers_run=(6, 2, 4),
        layers_filled=(0, 4, 0),
        layers_skipped=(0, 0, 2),
        exit_histogram={2: 1, 4: 1, 6: 1},
        mean_exit_layer=4.0,
        drafts_proposed=0,
        drafts_accepted=0,
        top_passes=1,
        replayed_tokens=0,
        cached_prompt_tokens=0,
        exits={"criterion": "max_prob"},
        switched_off=False,
    )
    confidences = (None, 0.9, 0.8)
    return Output(index, "".join(PIECES), (7, 8), (0, 1, 2), LAYERS, confidences, None, finish_reason, report)


def exit_params(call: tuple[Any, ...]) -> ExitParams:
    """The exit parameters of a call."""
    exit = call[3][0] if isinstance(call[3], list) else call[3]
    assert isinstance(exit, ExitParams)
    return exit
