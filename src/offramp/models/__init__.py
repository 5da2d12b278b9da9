"""Models on disk: finding them, reading what they look like, and checking that their files fit together."""

from __future__ import annotations

from offramp.models.aliases import ALIASES, Alias
from offramp.models.cache import Progress, cache_dir
from offramp.models.from_gguf import spec_from_gguf
from offramp.models.from_hf import spec_from_hf
from offramp.models.hub import ModelFiles, resolve
from offramp.models.load import LoadedModel, load_model
from offramp.models.pull import pull
from offramp.models.rope import RopeSpec, inverse_frequencies
from offramp.models.spec import FAMILIES, ModelSpec
from offramp.models.tensors import check_tensors, expected_tensors

__all__ = [
    "ALIASES",
    "FAMILIES",
    "Alias",
    "LoadedModel",
    "ModelFiles",
    "ModelSpec",
    "Progress",
    "RopeSpec",
    "cache_dir",
    "check_tensors",
    "expected_tensors",
    "inverse_frequencies",
    "load_model",
    "pull",
    "resolve",
    "spec_from_gguf",
    "spec_from_hf",
]
