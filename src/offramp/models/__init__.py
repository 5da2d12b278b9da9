"""Models on disk: finding them, reading what they look like, and checking that their files fit together."""

from __future__ import annotations

from offramp.models.aliases import ALIASES, Alias
from offramp.models.cache import Progress, cache_dir
from offramp.models.from_gguf import spec_from_gguf
from offramp.models.from_hf import spec_from_hf
from offramp.models.hub import ModelFiles, resolve
from offramp.models.load import AnyModel, LoadedModel, load_any, load_model, open_model
from offramp.models.pull import pull
from offramp.models.relative import relative_buckets
from offramp.models.rope import RopeSpec, inverse_frequencies
from offramp.models.spec import FAMILIES, ModelSpec
from offramp.models.t5 import T5Spec
from offramp.models.t5_from_hf import t5_spec_from_hf
from offramp.models.tensors import Spec, check_tensors, expected_tensors

__all__ = [
    "ALIASES",
    "FAMILIES",
    "Alias",
    "AnyModel",
    "LoadedModel",
    "ModelFiles",
    "ModelSpec",
    "Progress",
    "RopeSpec",
    "Spec",
    "T5Spec",
    "cache_dir",
    "check_tensors",
    "expected_tensors",
    "inverse_frequencies",
    "load_any",
    "load_model",
    "open_model",
    "pull",
    "relative_buckets",
    "resolve",
    "spec_from_gguf",
    "spec_from_hf",
    "t5_spec_from_hf",
]
