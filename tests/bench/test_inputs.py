"""What is known of the model that is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offramp.bench.engines import our_engines, peer_engines
from offramp.executors.native.layout import matrix_bytes
from tests.bench.toys import toy_input
from tests.toy import DictSource, toy_spec


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_reads_all_layers_and_one_head(tied: bool) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    spec = replace(toy_spec(2), tie_word_embeddings=tied, **sizes)  # type: ignore[arg-type]
    d, m, kv = spec.hidden_size, spec.intermediate_size, spec.num_kv_heads * spec.head_dim
    q = spec.num_heads * spec.head_dim
    assert all(size % 16 == 0 for size in (d, m, kv, q, spec.vocab_size))
    layer = [(q + 2 * kv, d), (d, q), (2 * m, d), (d, m)]
    expected = 2 * sum(matrix_bytes("f16", *shape) for shape in layer) + matrix_bytes("f16", spec.vocab_size, d)
    made = replace(toy_input(), spec=spec, weights=DictSource({}))
    assert made.weight_bytes(our_engines(["float16"])[0]) == expected


def test_of_others_nothing_is_known() -> None:
    made = replace(toy_input(), weights=DictSource({}))
    engines = [*our_engines(["float32@torch"]), *peer_engines(["vllm"])]
    assert [made.weight_bytes(engine) for engine in engines] == [None] * 3
    assert toy_input().weight_bytes(our_engines(["int8"])[0]) is None
