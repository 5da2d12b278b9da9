"""Loading gives the model that Transformers loads, from either format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.torch import save_file

from offramp.errors import WeightsError
from offramp.models import FAMILIES, inverse_frequencies, load_model
from offramp.weights.source import WeightSource
from tests.models.real import smollm2
from tests.models.toys import save_gguf, save_model


def assert_same_weights(source: WeightSource, model: Any, but: tuple[str, ...] = ()) -> None:
    for name, tensor in model.state_dict().items():
        if name not in but:
            np.testing.assert_array_equal(source.load(name), tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_loads(tmp_path: Path, family: str) -> None:
    model = save_model(tmp_path / "toy", family)
    loaded = load_model(str(tmp_path / "toy"))
    assert (loaded.name, loaded.spec.family, loaded.spec.eos_token_ids) == ("toy", family, (0,))
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("hé")) == "hé"
    assert_same_weights(loaded.weights, model)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_loads(tmp_path: Path, family: str, tied: bool) -> None:
    model = save_model(tmp_path, family, tie_word_embeddings=tied, head_dim=4)
    loaded = load_model(str(save_gguf(tmp_path / "toy.gguf", model, family)))
    assert (loaded.name, loaded.spec.family, loaded.spec.tie_word_embeddings) == ("toy", family, tied)
    assert_same_weights(loaded.weights, model, but=("lm_head.weight",) if tied else ())


def test_a_head_that_is_said_to_be_tied_and_is_not_is_the_head(tmp_path: Path) -> None:
    model = save_model(tmp_path, tie_word_embeddings=True)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for head, tied in ((tensors["model.embed_tokens.weight"].clone(), True), (tensors["lm_head.weight"] + 1, False)):
        save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
        loaded = load_model(str(tmp_path))
        assert loaded.spec.tie_word_embeddings == tied
        np.testing.assert_array_equal(loaded.weights.load("lm_head.weight"), head.numpy())
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"][1:].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"tensor `lm_head.weight` in .* has shape"):
        load_model(str(tmp_path))


def test_both_formats_give_the_same_specification(tmp_path: Path) -> None:
    model = save_model(tmp_path, "qwen2", rms_norm_eps=2**-20)
    folder = load_model(str(tmp_path)).spec
    gguf = load_model(str(save_gguf(tmp_path / "toy.gguf", model, "qwen2"))).spec
    assert gguf.rms_norm_eps == pytest.approx(folder.rms_norm_eps, rel=0.1)
    assert (gguf.attention_bias, gguf.tie_word_embeddings, gguf.rope) == (True, False, folder.rope)


def test_stored_rope_divisors_reach_the_frequencies(tmp_path: Path) -> None:
    divisors = {"rope_freqs.weight": np.array([1, 8], np.float32)}
    path = save_gguf(tmp_path / "toy.gguf", save_model(tmp_path), extra=divisors)
    found, _ = inverse_frequencies(load_model(str(path)).spec.rope, 4)
    np.testing.assert_allclose(found, [1.0, 0.01 / 8])


def test_end_tokens_are_the_tokenizers_where_the_model_names_none(tmp_path: Path) -> None:
    save_model(tmp_path, eos_token_id=None)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    assert load_model(str(tmp_path)).spec.eos_token_ids == (0,)


def test_a_missing_tensor_is_found_on_load(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(WeightsError) as caught:
        load_model(str(tmp_path))
    assert caught.value.message.startswith(
        f"`{tmp_path / 'model.safetensors'}` lacks tensors of the model: `model.layers.2.input_layernorm.weight`, "
    )


@pytest.mark.parametrize(("text", "problem"), [("{", "is not JSON"), ("[]", "is not a JSON object")])
def test_a_broken_configuration_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError) as caught:
        load_model(str(tmp_path))
    assert caught.value.message == f"`{tmp_path / 'config.json'}` {problem}"


def test_identity_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    save_model(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    save_model(tmp_path / "c", rms_norm_eps=1e-5)
    a, b, c = (load_model(str(tmp_path / name)).identity for name in "abc")
    assert a == b != c


def test_the_real_model_loads_as_its_card_says() -> None:
    spec = load_model("smollm2-135m").spec
    assert (spec.num_layers, spec.hidden_size, spec.num_heads, spec.num_kv_heads) == (30, 576, 9, 3)
    assert (spec.vocab_size, spec.max_model_len, spec.rope.theta) == (49152, 8192, 100_000.0)
    assert (spec.tie_word_embeddings, spec.eos_token_ids, spec.bos_token_id) == (True, (2, 0), 1)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_the_real_weights_are_those_that_transformers_reads() -> None:
    path = smollm2()
    weights = load_model(str(path)).weights
    reference = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    state = reference.state_dict()
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        name = f"model.layers.7.self_attn.{part}.weight"
        np.testing.assert_array_equal(weights.load(name), state[name].float().numpy(), err_msg=name)
