"""Tensors on disk, read lazily under their Hugging Face names."""

from __future__ import annotations

from offramp.weights.folder import SafetensorsWeights
from offramp.weights.gguf import GGUFWeights
from offramp.weights.source import Blocks, BlockSource, WeightSource, fingerprint

__all__ = ["BlockSource", "Blocks", "GGUFWeights", "SafetensorsWeights", "WeightSource", "fingerprint"]
