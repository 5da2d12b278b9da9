"""What tests of the native executor share: unpacking, and small GGUF models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize

from offramp import _native
from offramp.executors.native.layout import PANEL, PackedMatrix
from offramp.executors.native.matrices import MatrixPlan
from offramp.executors.native.pack import pack_model
from offramp.executors.native.plan import plan_matrices
from offramp.models import Spec
from offramp.models.rope import RopeSpec
from offramp.models.spec import ModelSpec
from offramp.weights import GGUFWeights, WeightSource
from tests.toy import DictSource, toy_weights
from tests.weights.toys import permuted, write_gguf

SPEC = ModelSpec(
    family="llama",
    num_layers=1,
    hidden_size=256,
    intermediate_size=512,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    vocab_size=80,
    max_model_len=64,
    rms_norm_eps=1e-6,
    rope=RopeSpec(),
    tie_word_embeddings=True,
)
"""Wide enough for blocks of 256."""

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def unpack(matrix: PackedMatrix) -> np.ndarray:
    """The matrix [n, k] as float32."""
    return _native.unpack(matrix.type, matrix.data, matrix.n, matrix.k)


def unpacked_parts(plan: MatrixPlan, matrix: PackedMatrix) -> dict[str, np.ndarray]:
    """The tensors [rows, k] that a matrix was made of."""
    padded = -(-matrix.n // PANEL) * PANEL
    panels = _native.unpack(matrix.type, matrix.data, padded, matrix.k).reshape(-1, PANEL, matrix.k)
    return {p.tensor: panels[p.first :: p.step].reshape(-1, matrix.k)[: p.rows] for p in plan.parts}


def dequantised(spec: Spec, source: WeightSource, dtype: str) -> DictSource:
    """The weights that the native executor computes with, as plain numbers."""
    plans = plan_matrices(spec, source, dtype)
    packed, _ = pack_model(plans, source)
    arrays = {name: source.load(name) for name in source.shapes()}
    for plan in plans:
        if not plan.name.endswith("passing"):
            arrays |= unpacked_parts(plan, packed[plan.name])
    return DictSource(arrays)


def random_blocks(kind: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Stored blocks (rows, bytes); of types that gguf cannot write, any bits with scales of a sensible size."""
    rng = np.random.default_rng(seed)
    if kind != "Q4_K":
        numbers = rng.standard_normal((rows, columns)).astype(np.float32) / 16
        return np.asarray(quantize(numbers, GGMLQuantizationType[kind]))
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType.Q4_K]
    blocks = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    scales = rng.uniform(0.5, 1.5, (rows, columns // block, 2)).astype(np.float16) / np.float16(4096)
    blocks[..., :4] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)


def gguf_model(folder: Path, kinds: Mapping[str, str], default: str) -> GGUFWeights:
    """A file of `SPEC` whose matrices are stored as `kinds` says, by their GGUF name without layer, or as `default`."""
    plain = toy_weights(SPEC)
    tensors: dict[str, np.ndarray] = {"output_norm.weight": plain["model.norm.weight"]}
    quantized = {}

    def put(name: str, rows: int, columns: int) -> None:
        kind = kinds.get(name.removeprefix("blk.0.").removesuffix(".weight"), default)
        tensors[name] = random_blocks(kind, rows, columns, seed=len(tensors))
        quantized[name] = GGMLQuantizationType[kind]

    put("token_embd.weight", SPEC.vocab_size, SPEC.hidden_size)
    for name, stored in GGUF_NAMES.items():
        array = plain[f"model.layers.0.{name}.weight"]
        if array.ndim == 1:
            tensors[f"blk.0.{stored}.weight"] = array
        else:
            put(f"blk.0.{stored}.weight", *array.shape)
    for name, heads in (("q", SPEC.num_heads), ("k", SPEC.num_kv_heads)):
        tensors[f"blk.0.attn_{name}.weight"] = permuted(tensors[f"blk.0.attn_{name}.weight"], heads)
    numbers = {"llama.attention.head_count": SPEC.num_heads, "llama.attention.head_count_kv": SPEC.num_kv_heads}
    return GGUFWeights(write_gguf(folder / "toy.gguf", tensors, numbers=numbers, quantized=quantized))
