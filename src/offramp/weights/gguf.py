"""Weights in a GGUF file, under their Hugging Face names and in their Hugging Face layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import WeightsError
from offramp.weights.gguf_header import TensorInfo, read_header
from offramp.weights.source import Array, Blocks, map_file, no_such_tensor

TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_DIVISORS = "rope_freqs.weight"
"""Not a weight: what each RoPE frequency is divided by (Llama 3.1 scaling)."""

LAYER_NAME = re.compile(r"blk\.(0|[1-9]\d*)\.([a-z_]+)\.(weight|bias)")
PERMUTED = re.compile(r"self_attn\.([qk])_proj\.(?:weight|bias)$")
PERMUTED_ARCHITECTURES = ("llama",)
"""Architectures whose Q and K rows the converter reorders for interleaved RoPE; Mistral is stored as `llama`."""


class GGUFWeights:
    """The tensors and metadata of a GGUF file.

    Tensors are dequantised on `load`. A tensor that has no Hugging Face name keeps its GGUF name in `shapes`.

    Raises:
        WeightsError: the file is not GGUF, is truncated or corrupt, or holds tensors of an unknown type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = map_file(path)
        header = read_header(path, self._data)
        self.metadata: dict[str, Any] = header.metadata
        self._sizes = {name: self._num_bytes(name, info) for name, info in header.tensors.items()}
        self._check_layout(header.tensors)
        self._infos = header.tensors
        self._names = {hf_name(name): name for name in header.tensors if name != ROPE_DIVISORS}

    @property
    def files(self) -> tuple[Path, ...]:
        """The file itself."""
        return (self.path,)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: self._infos[stored].shape for name, stored in self._names.items()}

    def load(self, name: str) -> Array:
        """The tensor; see `WeightSource.load`."""
        return self._in_order(name, self._dequantize(self._stored(name)))

    def block_kind(self, name: str) -> str | None:
        """How a matrix is quantised; see `BlockSource.block_kind`."""
        info = self._infos[self._stored(name)]
        kind, (block, _) = _kind(info.type_id)
        return kind if block > 1 and len(info.shape) == 2 else None

    def raw(self, name: str) -> Blocks:
        """The stored blocks of a quantised matrix; see `BlockSource.raw`."""
        kind = self.block_kind(name)
        if kind is None:
            raise WeightsError(f"tensor `{name}` in `{self.path}` is no quantised matrix")
        stored = self._stored(name)
        info = self._infos[stored]
        rows = self._data[info.offset : info.offset + self._sizes[stored]].reshape(info.shape[0], -1)
        return Blocks(kind, self._in_order(name, rows))

    def rope_divisors(self) -> tuple[float, ...]:
        """What each RoPE frequency is divided by; empty if the file does not say."""
        if ROPE_DIVISORS not in self._infos:
            return ()
        return tuple(float(value) for value in self._dequantize(ROPE_DIVISORS).ravel())

    def _stored(self, name: str) -> str:
        if name not in self._names:
            raise no_such_tensor(name, self.path)
        return self._names[name]

    def _in_order(self, name: str, array: Array) -> Array:
        """`array`, whose rows are those of the tensor, with the rows in their Hugging Face order."""
        permuted = PERMUTED.search(name)
        if permuted and self.metadata.get("general.architecture") in PERMUTED_ARCHITECTURES:
            return self._unpermute(name, array, kv=permuted[1] == "k")
        return array

    def _dequantize(self, stored: str) -> Array:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        info = self._infos[stored]
        kind = GGMLQuantizationType(info.type_id)
        data = self._data[info.offset : info.offset + self._sizes[stored]]
        if kind == GGMLQuantizationType.F16:
            return data.view(np.float16).reshape(info.shape)
        rows = data.reshape(math.prod(info.shape[:-1]), -1)
        try:
            return np.ascontiguousarray(dequantize(rows, kind), dtype=np.float32).reshape(info.shape)
        except NotImplementedError as error:
            raise WeightsError(
                f"tensor `{stored}` in `{self.path}` is stored as {kind.name}, which cannot be read"
            ) from error

    def _unpermute(self, name: str, array: Array, *, kv: bool) -> Array:
        """Undo the converter's interleaving: rows (head, d/2, 2) back to (head, 2, d/2)."""
        num_heads = self.metadata.get("llama.attention.head_count")
        if kv:
            num_heads = self.metadata.get("llama.attention.head_count_kv", num_heads)
        if type(num_heads) is not int or num_heads < 1 or array.shape[0] % (2 * num_heads):
            raise WeightsError(
                f"tensor `{name}` in `{self.path}` has {array.shape[0]} rows, which {num_heads!r} heads cannot share"
            )
        pairs = array.reshape(num_heads, array.shape[0] // num_heads // 2, 2, *array.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

    def _num_bytes(self, name: str, info: TensorInfo) -> int:
        try:
            _, (block, block_bytes) = _kind(info.type_id)
        except (ValueError, KeyError) as error:
            raise WeightsError(f"tensor `{name}` in `{self.path}` has unknown type {info.type_id}") from error
        if not info.shape or 0 in info.shape or info.shape[-1] % block:
            raise WeightsError(
                f"`{self.path}` is corrupt: tensor `{name}` of shape {list(info.shape)} is not made of rows of "
                f"blocks of {block}"
            )
        return math.prod(info.shape) // block * block_bytes

    def _check_layout(self, infos: Mapping[str, TensorInfo]) -> None:
        end, before = 0, ""
        for name, info in sorted(infos.items(), key=lambda item: item[1].offset):
            if info.offset < end:
                raise WeightsError(f"`{self.path}` is corrupt: tensors `{before}` and `{name}` overlap")
            end, before = info.offset + self._sizes[name], name
            if end > len(self._data):
                raise WeightsError(
                    f"`{self.path}` is truncated: tensor `{name}` ends at byte {end} of {len(self._data)}"
                )


def _kind(type_id: int) -> tuple[str, tuple[int, int]]:
    """A stored type's name, and the values and bytes of one of its blocks."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType(type_id)
    return kind.name, GGML_QUANT_SIZES[kind]


def hf_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor, or the GGUF name itself if it has none."""
    if name in TOP_LEVEL:
        return TOP_LEVEL[name]
    match = LAYER_NAME.fullmatch(name)
    if match and match[2] in IN_LAYER:
        return f"model.layers.{match[1]}.{IN_LAYER[match[2]]}.{match[3]}"
    return name
