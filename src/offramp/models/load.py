"""From a model's name to everything an executor needs of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.errors import Unsupported, WeightsError
from offramp.models.cache import Progress
from offramp.models.from_gguf import spec_of_gguf
from offramp.models.from_hf import spec_from_hf
from offramp.models.hub import ModelFiles, resolve
from offramp.models.spec import ModelSpec
from offramp.models.t5_from_hf import t5_spec_from_hf
from offramp.models.tensors import Spec, check_tensors
from offramp.tokenizer import Tokenizer, tokenizer_from_folder, tokenizer_from_gguf
from offramp.weights import GGUFWeights, SafetensorsWeights, WeightSource, fingerprint


@dataclass(frozen=True, slots=True)
class AnyModel:
    """A model of any kind whose files were found and checked; its weights are still on disk.

    `identity` tells checkpoints apart: a SHA-256 over the configuration and samples of the weight files. It does
    not depend on where the files lie.
    """

    name: str
    spec: Spec
    weights: WeightSource
    tokenizer: Tokenizer
    identity: str


@dataclass(frozen=True, slots=True)
class LoadedModel(AnyModel):
    """A decoder-only model."""

    spec: ModelSpec


def load_model(model: str, progress: Progress | None = None) -> LoadedModel:
    """`load_any` for what works on decoder-only models.

    Raises:
        Unsupported: it is an encoder-decoder model, too.
    """
    loaded = load_any(model, progress)
    if isinstance(loaded, LoadedModel):
        return loaded
    raise Unsupported(
        f"`{loaded.name}` is an encoder-decoder model, and this takes decoder-only ones",
        hint="`offramp generate` and `offramp serve` take both",
    )


def load_any(model: str, progress: Progress | None = None) -> AnyModel:
    """Resolve, open and check a model: an alias, a folder in Hugging Face form, a `.gguf` file or a hub id. One that is
    decoder-only is a `LoadedModel`.

    Raises:
        ModelNotFound, DownloadError, MissingDependency: it is not here and could not be fetched.
        Unsupported: a family, or arithmetic, that is not here.
        WeightsError: the files are corrupt or do not fit together.
        TokenizerError: no readable tokenizer.
    """
    files = resolve(model, progress)
    spec, weights = open_model(files)
    if isinstance(weights, GGUFWeights):
        tokenizer, config = tokenizer_from_gguf(weights.metadata), b""
    else:
        tokenizer, config = tokenizer_from_folder(files.path), (files.path / "config.json").read_bytes()
    if not spec.eos_token_ids and tokenizer.eos_token_id is not None:
        spec = replace(spec, eos_token_ids=(tokenizer.eos_token_id,))
    identity = hashlib.sha256(config + fingerprint(weights.files).encode()).hexdigest()
    if isinstance(spec, ModelSpec):
        return LoadedModel(files.name, spec, weights, tokenizer, identity)
    return AnyModel(files.name, spec, weights, tokenizer, identity)


def open_model(files: ModelFiles) -> tuple[Spec, WeightSource]:
    """What a model looks like and its weights, which fit together; see `load_any` for errors. Needs no tokenizer."""
    spec: Spec
    weights: WeightSource
    if files.form == "gguf":
        weights = gguf = GGUFWeights(files.path)
        spec = spec_of_gguf(gguf)
    else:
        config, generation = _read_json(files.path / "config.json"), files.path / "generation_config.json"
        generating = _read_json(generation) if generation.is_file() else None
        plain = None if config.get("model_type") == "t5" else spec_from_hf(config, generating)
        weights = SafetensorsWeights(files.path)
        spec = plain or t5_spec_from_hf(config, weights.shapes(), generating)
        if isinstance(spec, ModelSpec) and spec.tie_word_embeddings and _has_own_head(weights):
            spec = replace(spec, tie_word_embeddings=False)
    check_tensors(spec, weights)
    return spec, weights


def _has_own_head(weights: WeightSource) -> bool:
    """Whether there is an LM head that is not the embedding: a model trained further may say that they are tied when
    they no longer are. Transformers 5 looks, too."""
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    shapes = weights.shapes()
    if head not in shapes or embedding not in shapes:
        return False
    return shapes[head] != shapes[embedding] or not np.array_equal(weights.load(head), weights.load(embedding))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"`{path}` is not JSON") from error
    if not isinstance(values, dict):
        raise WeightsError(f"`{path}` is not a JSON object")
    return values
