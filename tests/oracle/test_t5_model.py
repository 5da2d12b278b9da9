"""The oracle's T5 checked against Transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from tests.executors.toys import norms_in_float64
from tests.oracle.t5_model import OracleT5
from tests.t5_toy import toy_t5_spec, toy_t5_weights
from tests.toy import toy_pack


@pytest.mark.parametrize("gated", [True, False])
def test_the_model_is_a_t5(gated: bool) -> None:
    spec = toy_t5_spec(gated=gated)
    weights = toy_t5_weights(spec)
    options: dict[str, Any] = {
        "vocab_size": spec.vocab_size,
        "d_model": spec.hidden_size,
        "d_kv": spec.head_dim,
        "d_ff": spec.intermediate_size,
        "num_layers": spec.num_encoder_layers,
        "num_decoder_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "relative_attention_num_buckets": spec.num_buckets,
        "relative_attention_max_distance": spec.max_distance,
        "layer_norm_epsilon": spec.rms_norm_eps,
        "feed_forward_proj": spec.feed_forward,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "scale_decoder_outputs": spec.scale_head,
    }
    config = T5Config(**options)
    reference = T5ForConditionalGeneration(config).double().eval()
    if not spec.tie_word_embeddings:
        reference.lm_head.weight = nn.Parameter(torch.empty_like(reference.lm_head.weight))
    missing, unknown = reference.load_state_dict(
        {name: torch.tensor(array).double() for name, array in weights.items()}, strict=False
    )
    assert not unknown and {name.rpartition(".")[0] for name in missing} <= {
        "encoder.embed_tokens",
        "decoder.embed_tokens",
        "lm_head",
    }
    norms_in_float64(reference)
    source, tokens = [7, 3, 11, 40, 3, 9, 12, 8], [1, 7, 3, 11, 40, 3, 9, *range(20, 44)]
    with torch.no_grad():
        expected = reference(torch.tensor([source]), decoder_input_ids=torch.tensor([tokens]), use_cache=False)
    model = OracleT5(spec, weights, toy_pack(spec), 64, 12).reading(source)
    hidden = model.embed(tokens)
    for layer in range(spec.num_layers):
        keys, values = np.full((2, len(tokens), *model.kv_shape), np.nan)
        hidden = model.run(layer, hidden, list(range(len(tokens))), keys, values)
    np.testing.assert_allclose([model.top_logits(h) for h in hidden], expected.logits[0].numpy(), atol=1e-9)
