"""A T5 over whole sequences, with gradients for all of its weights.

Weights, hidden states and norms are float32; products are in `dtype`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.models import T5Spec, relative_buckets

Leave = Callable[[int, Tensor], Tensor | None]
"""Takes a count of decoder layers and the hidden states behind them; says which tokens have left by now, bool
[sequences, tokens], or None for none."""


@dataclass(frozen=True)
class Encoded:
    """What the decoder reads: hidden states [sequences, tokens, width], normed, and the bias that hides padding
    [sequences, 1, 1, tokens], both in the type of products."""

    states: Tensor
    bias: Tensor


class DenseT5:
    """The layers of a T5.

    Args:
        spec: what it looks like; its head is its embedding.
        weights: its tensors by their Hugging Face names, float32.
        dtype: of products.
        dropout: the share of each sublayer's output that is dropped.
    """

    def __init__(self, spec: T5Spec, weights: Mapping[str, Tensor], dtype: torch.dtype, dropout: float = 0.0) -> None:
        self.spec, self.weights, self.dtype, self.dropout = spec, weights, dtype, dropout
        self._buckets = {
            stack: torch.from_numpy(
                relative_buckets(spec.num_buckets, spec.max_distance, bidirectional=stack == "encoder")
            ).to(self.head.device)
            for stack in ("encoder", "decoder")
        }

    @property
    def head(self) -> Tensor:
        """The matrix of the LM head [vocabulary, width]."""
        return self.weights[self.spec.lm_head]

    def normed(self, hidden: Tensor) -> Tensor:
        """What classifiers read, at any exit: under the shared norm, float32."""
        return F.rms_norm(hidden, (self.spec.hidden_size,), self.weights[self.spec.final_norm], self.spec.rms_norm_eps)

    def states(self, hidden: Tensor) -> Tensor:
        """What the head's matrix multiplies, at any exit: normed and scaled, in the type of products."""
        return (self.normed(hidden) * self.spec.head_scale).to(self.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the shared norm and head, at any exit."""
        return self.states(hidden) @ self.head.to(self.dtype).T

    def encode(self, ids: Tensor, lengths: Tensor) -> Encoded:
        """Run the encoder over `ids` [sequences, tokens], of which each sequence has its first `lengths`."""
        places = torch.arange(ids.shape[1], device=ids.device)
        hides = torch.zeros_like(ids, dtype=self.dtype).masked_fill_(places >= lengths[:, None], self._never)
        bias = hides[:, None, None]
        hidden = F.embedding(ids, self.head)
        near = self.position_bias("encoder", places, places) + bias
        for index in range(self.spec.num_encoder_layers):
            prefix = f"encoder.block.{index}.layer."
            x = self.norm(hidden, f"{prefix}0.layer_norm.weight")
            hidden = hidden + self._attend(f"{prefix}0.SelfAttention.", x, x, near)
            hidden = hidden + self.mlp(f"{prefix}1.", hidden)
        return Encoded(self.norm(hidden, "encoder.final_layer_norm.weight"), bias)

    def decode(self, ids: Tensor, encoded: Encoded, taps: Sequence[int], leave: Leave | None = None) -> list[Tensor]:
        """Hidden states [sequences, tokens, width] after each of `taps` decoder layers, ascending.

        `ids` [sequences, tokens] begin with the token that begins every target; what pads a sequence comes last. Where
        a token has left, its hidden state stays as it is, and the layers above project their K and V from that, as
        under `fill`.
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        later = torch.full((len(places), len(places)), self._never, dtype=self.dtype, device=ids.device).triu(1)
        bias = self.position_bias("decoder", places, places) + later
        hidden, found = F.embedding(ids, self.head), []
        for layer in range(taps[-1] + 1):
            if layer:
                left = None if leave is None else leave(layer - 1, hidden)
                ran = self._decoder_layer(layer - 1, hidden, bias, encoded)
                hidden = ran if left is None else torch.where(left[..., None], hidden, ran)
            if layer in taps:
                found.append(hidden)
        return found

    def _decoder_layer(self, index: int, hidden: Tensor, bias: Tensor, encoded: Encoded) -> Tensor:
        prefix = f"decoder.block.{index}.layer."
        x = self.norm(hidden, f"{prefix}0.layer_norm.weight")
        hidden = hidden + self._attend(f"{prefix}0.SelfAttention.", x, x, bias)
        x = self.norm(hidden, f"{prefix}1.layer_norm.weight")
        hidden = hidden + self._attend(f"{prefix}1.EncDecAttention.", x, encoded.states, encoded.bias)
        return hidden + self.mlp(f"{prefix}2.", hidden)

    @property
    def _never(self) -> float:
        """The bias of what must not be seen."""
        return torch.finfo(self.dtype).min / 4

    def _linear(self, x: Tensor, prefix: str, *names: str) -> tuple[Tensor, ...]:
        """Several linear layers over the same `x`, in one product."""
        weights = [self.weights[f"{prefix}{name}.weight"].to(self.dtype) for name in names]
        if len(names) == 1:
            return (F.linear(x, weights[0]),)
        return F.linear(x, torch.cat(weights)).chunk(len(names), dim=-1)

    def norm(self, hidden: Tensor, name: str) -> Tensor:
        """RMSNorm, in the type of products."""
        return F.rms_norm(hidden, (self.spec.hidden_size,), self.weights[name], self.spec.rms_norm_eps).to(self.dtype)

    def _drop(self, output: Tensor) -> Tensor:
        return F.dropout(output, self.dropout) if self.dropout else output

    def mlp(self, prefix: str, hidden: Tensor) -> Tensor:
        """The MLP of a layer, with its norm."""
        x, prefix = self.norm(hidden, f"{prefix}layer_norm.weight"), f"{prefix}DenseReluDense."
        if self.spec.is_gated:
            gate, up = self._linear(x, prefix, "wi_0", "wi_1")
            inner = F.gelu(gate, approximate="tanh") * up
        else:
            inner = F.relu(self._linear(x, prefix, "wi")[0])
        return self._drop(self._linear(inner, prefix, "wo")[0])

    def _attend(self, prefix: str, x: Tensor, to: Tensor, bias: Tensor) -> Tensor:
        """Attention of `x` to the states `to`, both [sequences, tokens, width]."""
        if to is x:
            q, k, v = self.heads(x, prefix, *"qkv")
        else:
            (q,), (k, v) = self.heads(x, prefix, "q"), self.heads(to, prefix, *"kv")
        return self.mix(prefix, q, k, v, bias)

    def heads(self, x: Tensor, prefix: str, *names: str) -> tuple[Tensor, ...]:
        """Projections of `x`, each [sequences, heads, tokens, head_dim]."""
        projected = self._linear(x, prefix, *names)
        return tuple(t.view(*t.shape[:2], self.spec.num_heads, -1).transpose(1, 2) for t in projected)

    def mix(self, prefix: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """What queries read of keys and values; T5 scales no scores."""
        shares = (q @ k.transpose(-1, -2) + bias).softmax(-1)
        return self._drop(self._linear((shares @ v).transpose(1, 2).flatten(2), prefix, "o")[0])

    def position_bias(self, stack: str, queries: Tensor, keys: Tensor) -> Tensor:
        """The bias of relative positions [1, heads, queries, keys]."""
        table = self.weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        reach = self.spec.max_distance
        apart = (keys[None] - queries[:, None]).clamp(-reach, reach)
        return F.embedding(self._buckets[stack][apart + reach], table).permute(2, 0, 1)[None].to(self.dtype)
