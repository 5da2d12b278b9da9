"""Toy T5 models: Transformers' own with random weights, and our executors over the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from offramp.exits.pack import ExitPack
from offramp.models import T5Spec, t5_spec_from_hf
from offramp.types.executor import Executor, Source, SourceRows
from tests.executors.toys import VOCAB, AnyToy, ArraySource, block_tables, norms_in_float64

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 4,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
UNTIED = {"tie_word_embeddings": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "1.0": {},
    "1.1": {"feed_forward_proj": "gated-gelu", **UNTIED},
    "tied-gated": {"feed_forward_proj": "gated-gelu", "num_layers": 3, "num_decoder_layers": 4},
    "tied-unscaled": {"scale_decoder_outputs": False},
    "untied-scaled": {"scale_decoder_outputs": True, **UNTIED},
    "wide-heads": {"num_heads": 5, "d_kv": 8, "relative_attention_num_buckets": 32},
}
SHAPES: dict[str, dict[str, Any]] = {
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "t5-v1_1-small": {
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
        **UNTIED,
    },
    "t5-base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}


@dataclass(frozen=True)
class T5Toy(AnyToy):
    """A T5, and what we read off it."""

    spec: T5Spec

    def executor(self, exits: Sequence[int] | ExitPack = (1, 2), **options: Any) -> Executor:
        return AnyToy.executor(self, exits, **{"num_source_blocks": 64, **options})

    def tolerance(self, exact: float) -> float:
        """As for others, but scores are not scaled here, so that errors grow: torch in float32 is as far off."""
        return exact if self.kind == "torch" else 5e-4

    def encoded(self, source: Sequence[int]) -> Tensor:
        """What Transformers' encoder makes of a source: [tokens, hidden_size]."""
        with torch.no_grad():
            states: Tensor = self.model.encoder(torch.tensor([source])).last_hidden_state[0]
        return states

    def hidden(self, source: Sequence[int], tokens: Sequence[int]) -> list[Tensor]:
        """Transformers' hidden states after 0, 1, ... decoder layers: [tokens, hidden_size] each."""
        seen: list[Tensor] = [self.model.shared(torch.tensor([tokens]))]
        hooks = [b.register_forward_hook(lambda *args: seen.append(args[2][0])) for b in self.model.decoder.block]
        with torch.no_grad():
            self.model.decoder(torch.tensor([tokens]), encoder_hidden_states=self.encoded(source)[None])
        for hook in hooks:
            hook.remove()
        return [states.view(len(tokens), -1).detach() for states in seen]

    def log_probs(self, source: Sequence[int], tokens: Sequence[int], layer: int) -> Tensor:
        """Transformers' log-probabilities [tokens, vocab] after `layer` decoder layers."""
        with torch.no_grad():
            if layer == self.spec.num_layers:
                logits = self.model(torch.tensor([source]), decoder_input_ids=torch.tensor([tokens])).logits[0]
            else:
                normed = self.model.decoder.final_layer_norm(self.hidden(source, tokens)[layer])
                logits = self.model.lm_head(normed * self.spec.head_scale)
            return torch.log_softmax(logits, -1)


def make_t5_toy(
    variant: str = "1.0",
    dtype: torch.dtype = torch.float64,
    kind: str = "torch",
    matrices: float | None = 0.3,
    **overrides: Any,
) -> T5Toy:
    """A toy; `matrices` is the standard deviation of their numbers, None for Transformers' own choice."""
    options = {**SIZES, **VARIANTS.get(variant, {}), **overrides}
    config = transformers.T5Config(**options)
    torch.manual_seed(0)
    model: Any = transformers.T5ForConditionalGeneration(config)
    if options.get("tie_word_embeddings") is False:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
    model.eval().to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "relative" in name:
                parameter.normal_(mean=float("norm" in name), std=0.3 if "norm" in name else 1.0)
            elif matrices is not None:
                parameter.normal_(std=matrices)
    if dtype == torch.float64:
        norms_in_float64(model)
    arrays = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    return T5Toy(model, t5_spec_from_hf(config.to_dict(), arrays), ArraySource(arrays), kind)


def encode_all(executor: Executor, sources: Sequence[Sequence[int]], seed: int = 1) -> list[Source]:
    """Encode all sources at once, into shuffled blocks."""
    assert executor.shape.encoder is not None
    lengths = [len(source) for source in sources]
    tables = block_tables(lengths, executor.shape.block_size, executor.shape.encoder.num_blocks, seed)
    executor.encode([SourceRows(source, table) for source, table in zip(sources, tables, strict=True)])
    return [Source(length, table) for length, table in zip(lengths, tables, strict=True)]
