"""Toy models: a Transformers model of a tiny configuration, and our executors over the same weights."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from offramp.exits.pack import ExitPack, ExitSpec, static_exits
from offramp.models import ModelSpec, Spec, inverse_frequencies, spec_from_hf
from offramp.types.executor import Executor, Feature, Scored, ScoreRow, SeqRows, Source
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import make_executor, write_hidden

VOCAB = 97
REDUCED = tuple(range(0, VOCAB, 2))
OUTSIDE = tuple(range(1, VOCAB, 2))
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "llama-tied": (transformers.LlamaConfig, {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama-biased": (transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "mistral": (transformers.MistralConfig, {"sliding_window": 5}),
    "qwen2": (
        transformers.Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2, "num_key_value_heads": 4},
    ),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
}


@dataclass(frozen=True)
class ArraySource:
    """Weights in memory."""

    arrays: Mapping[str, np.ndarray]
    files: tuple[Path, ...] = ()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.arrays.items()}

    def load(self, name: str) -> np.ndarray:
        return self.arrays[name]


@dataclass(frozen=True)
class AnyToy:
    """A Transformers model with random weights, norms and biases included.

    `kind` is that of the executors it gives (`tests.executors.kinds`).
    """

    model: Any
    spec: Spec
    source: ArraySource
    kind: str = "torch"

    def executor(self, exits: Sequence[int] | ExitPack = (1, 2), **options: Any) -> Executor:
        pack = exits if isinstance(exits, ExitPack) else static_exits(exits, self.spec.num_layers)
        defaults: dict[str, Any] = {"block_size": 4, "num_blocks": 48}
        return make_executor(self.kind, self.spec, self.source, pack, **{**defaults, **options})

    def tolerance(self, exact: float) -> float:
        """How far log-probabilities and features may be off: `exact` in float64, 1e-4 in float32."""
        return exact if self.kind == "torch" else 1e-4

    def approx(self, value: Any) -> Any:
        """Equal but for rounding."""
        return pytest.approx(value) if self.kind == "torch" else pytest.approx(value, abs=1e-5)


@dataclass(frozen=True)
class Toy(AnyToy):
    """One of the Llama line."""

    spec: ModelSpec

    def log_probs(self, tokens: Sequence[int], layer: int) -> Tensor:
        """Transformers' log-probabilities [tokens, vocab] from the hidden states after `layer` layers."""
        with torch.no_grad():
            states = self.model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
            last = layer == self.spec.num_layers
            normed = states[layer] if last else self.model.model.norm(states[layer])
            return torch.log_softmax(self.model.lm_head(normed)[0], -1)


def make_toy(family: str = "llama", dtype: torch.dtype = torch.float64, kind: str = "torch", **overrides: Any) -> Toy:
    config_type, own = FAMILIES[family]
    config = config_type(**{**SIZES, **own, **overrides})
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.eval().to(dtype)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    spec = spec_from_hf(config.to_dict())
    if dtype == torch.float64:
        compute_in_float64(model, spec)
    arrays = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del arrays["lm_head.weight"]
    return Toy(model, spec, ArraySource(arrays), kind)


def compute_in_float64(model: nn.Module, spec: ModelSpec) -> None:
    """Transformers computes norms and rotary angles in float32 whatever the model's type; undo that."""
    frequencies, factor = inverse_frequencies(spec.rope, spec.head_dim)

    def angles(_: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        half = position_ids[..., None].double() * torch.tensor(frequencies)
        both = torch.cat((half, half), -1)
        return both.cos() * factor, both.sin() * factor

    norms_in_float64(model)
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = angles


def norms_in_float64(model: nn.Module) -> None:
    """Transformers computes norms in float32 whatever the model's type; undo that."""

    def norm_of(module: Any) -> Any:
        return lambda x: module.weight * x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()

    for module in model.modules():
        if type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")):
            module.forward = norm_of(module)


def block_tables(lengths: Sequence[int], block_size: int, num_blocks: int, seed: int = 0) -> list[list[int]]:
    """Shuffled block tables, long enough for sequences of these lengths."""
    free = list(range(num_blocks))
    random.Random(seed).shuffle(free)
    return [[free.pop() for _ in range(-(-n // block_size))] for n in lengths]


def run_all(
    executor: Executor,
    prompts: Sequence[Sequence[int]],
    tables: Sequence[Sequence[int]],
    sources: Sequence[Source | None] | None = None,
) -> None:
    """Run every token of `prompts` to the top, all segments at once."""
    for segment in range(executor.shape.num_segments):
        each = zip(prompts, tables, sources or [None] * len(prompts), strict=True)
        executor.run_segment(segment, [SeqRows(range(len(p)), p, table, source) for p, table, source in each])


def run_in_random_chunks(
    executor: Executor,
    prompts: Sequence[Sequence[int]],
    tables: Sequence[Sequence[int]],
    seed: int,
    sources: Sequence[Source | None] | None = None,
) -> None:
    """Run every token of `prompts` to the top, advancing random segments of random sequences by random chunks."""
    pick = random.Random(seed)
    segments = executor.shape.num_segments
    frontiers = [[len(p)] + [0] * segments for p in prompts]
    while any(f[-1] < f[0] for f in frontiers):
        segment = pick.randrange(segments)
        batch = []
        for prompt, table, source, frontier in zip(
            prompts, tables, sources or [None] * len(prompts), frontiers, strict=True
        ):
            start, ready = frontier[segment + 1], frontier[segment]
            stop = min(ready, start + pick.randint(0, 4))
            if start < stop:
                batch.append(SeqRows(range(start, stop), prompt[start:stop], table, source))
                frontier[segment + 1] = stop
        executor.run_segment(segment, batch)


def every_log_prob(
    executor: Executor, boundary: int, length: int, table: Sequence[int], sampling: SamplingParams | None = None
) -> Tensor:
    """Our log-probabilities [length, vocab] at a boundary, by the public way: as many logprobs as there are tokens."""
    sampling = sampling or SamplingParams(logprobs=VOCAB)
    result = torch.zeros((length, executor.shape.vocab_size), dtype=torch.float64)
    rows = [ScoreRow(p, table, sampling, seed=0) for p in range(length)]
    for p, scored in enumerate(executor.score(boundary, rows, frozenset())):
        assert scored.logprobs is not None
        for token, value in scored.logprobs:
            result[p, token] = value
    return result


def random_prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    pick = random.Random(seed)
    return [[pick.randrange(VOCAB) for _ in range(n)] for n in lengths]


def make_pack(toy: AnyToy, spec: ExitSpec, vocabulary: Sequence[int] | None = None, seed: int = 0) -> ExitPack:
    """A pack with one exit and random tensors of every name an exit can have."""
    pick = np.random.default_rng(seed)
    d, m = toy.spec.hidden_size, 8
    r = len(vocabulary) if vocabulary else toy.spec.vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "past.hidden_norm.weight": (d,),
        "past.state_norm.weight": (d,),
        "past.weight": (d, 2 * d),
        "norm.weight": (d,),
        "adapter.weight": (d, d),
        "adapter.bias": (d,),
        "adapter.norm.weight": (d,),
        "adapter.gate_proj.weight": (m, d),
        "adapter.up_proj.weight": (m, d),
        "adapter.down_proj.weight": (d, m),
        "head.weight": (r, d),
        "other.weight": (1, d),
        "other.bias": (1,),
        "classifier.weight": (1, d),
        "classifier.bias": (1,),
        "classifier.down.weight": (m, d),
        "classifier.down.bias": (m,),
        "classifier.up.weight": (1, m),
        "classifier.up.bias": (1,),
    }
    arrays = {f"exits.{spec.layer}.{name}": pick.normal(0, 0.5, shape) for name, shape in shapes.items()}
    vocabularies = {spec.vocabulary: tuple(vocabulary)} if spec.vocabulary and vocabulary else {}
    return ExitPack("toy", None, (spec,), vocabularies, tensors=ArraySource(arrays))


def score_hidden(
    executor: Executor,
    boundary: int,
    hidden: Tensor,
    sampling: SamplingParams | None = None,
    needs: frozenset[Feature] = frozenset(),
    *,
    choose: bool = True,
    **row: Any,
) -> list[Scored]:
    """Score hidden states [rows, hidden_size] as if segments had written them at positions 0, 1, ..."""
    write_hidden(executor, boundary, range(len(hidden)), hidden.numpy())
    table = range(-(-len(hidden) // executor.shape.block_size))
    sampling = sampling or SamplingParams()
    rows = [ScoreRow(p, table, sampling, **{"seed": 0, **row}) for p in range(len(hidden))]
    return executor.score(boundary, rows, needs, choose=choose)


def raw_logits(toy: AnyToy, hidden: Tensor) -> np.ndarray:
    """The model's own head on hidden states [rows, hidden_size], in NumPy."""
    norm, matrix = (toy.source.arrays[name] for name in (toy.spec.final_norm, toy.spec.lm_head))
    h = hidden.numpy()
    normed = norm * h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-6)
    return np.asarray(toy.spec.head_scale * normed @ matrix.T)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def states(toy: AnyToy, rows: int = 1) -> Tensor:
    """Hidden states [rows, hidden_size], the same every time."""
    return torch.tensor(np.random.default_rng(3).normal(0, 1, (rows, toy.spec.hidden_size)))
