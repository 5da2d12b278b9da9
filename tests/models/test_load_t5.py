"""Loading gives the T5 that Transformers loads, and what is not for T5 says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from offramp.errors import TokenizerError, Unsupported, WeightsError
from offramp.models import LoadedModel, T5Spec, expected_tensors, load_any, load_model
from tests.models.t5_toys import save_t5
from tests.models.toys import save_model

COPY = "decoder.embed_tokens.weight"
UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_a_folder_loads(tmp_path: Path, feed_forward: str, untied: bool) -> None:
    model = save_t5(tmp_path / "toy", untied=untied, feed_forward_proj=feed_forward)
    loaded = load_any(str(tmp_path / "toy"))
    spec = loaded.spec
    assert isinstance(spec, T5Spec)
    assert (loaded.name, spec.feed_forward, spec.eos_token_ids) == ("toy", feed_forward, (1,))
    assert (spec.tie_word_embeddings, spec.scale_head) == (not untied, not untied)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("the cab.")) == "the cab."
    stored = dict(model.named_parameters())
    assert {name: tuple(p.shape) for name, p in stored.items()} == expected_tensors(spec)
    for name, parameter in stored.items():
        np.testing.assert_array_equal(loaded.weights.load(name), parameter.detach().numpy(), err_msg=name)


def test_a_decoder_only_model_is_one_whichever_way_it_is_loaded(tmp_path: Path) -> None:
    save_model(tmp_path)
    assert isinstance(load_any(str(tmp_path)), LoadedModel)
    assert load_any(str(tmp_path)).identity == load_model(str(tmp_path)).identity


def test_what_takes_decoder_only_models_refuses_a_t5(tmp_path: Path) -> None:
    save_t5(tmp_path / "toy")
    with pytest.raises(Unsupported) as caught:
        load_model(str(tmp_path / "toy"))
    assert caught.value.message == "`toy` is an encoder-decoder model, and this takes decoder-only ones"


def changed(folder: Path, **tensors: np.ndarray | None) -> Path:
    """The checkpoint with tensors added or, where they are None, taken away."""
    path = folder / "model.safetensors"
    arrays = {**load_file(path), **tensors}
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    return path


def test_copies_of_the_embedding_and_an_unread_bias_are_let_through(tmp_path: Path) -> None:
    model = save_t5(tmp_path)
    changed(tmp_path, **{COPY: model.shared.weight.detach().numpy(), UNREAD: np.zeros((32, 3), np.float32)})
    assert load_any(str(tmp_path)).spec == load_any(str(tmp_path)).spec


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({COPY: np.zeros((21, 16), np.float32)}, f"tensor `{COPY}` in `PATH` is not the same as `shared.weight`"),
        ({"shared.weight": None}, "`PATH` lacks tensors of the model: `shared.weight`"),
        (
            {"encoder.block.2.layer.0.layer_norm.weight": np.zeros(16, np.float32)},
            "`PATH` holds tensors that the ",
        ),
        ({"lm_head.weight": np.zeros((21, 8), np.float32)}, "tensor `lm_head.weight` in `PATH` has shape [21, 8]; "),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    save_t5(tmp_path)
    path = changed(tmp_path, **tensors)
    with pytest.raises(WeightsError) as caught:
        load_any(str(tmp_path))
    assert caught.value.message.startswith(message.replace("PATH", str(path)))


def test_a_tokenizer_that_cannot_be_read_is_refused_by_name_with_what_to_do(tmp_path: Path) -> None:
    save_t5(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "spiece.model")
    with pytest.raises(TokenizerError) as caught:
        load_any(str(tmp_path))
    where = repr(str(tmp_path))
    assert caught.value.message == (
        f"`{tmp_path}` has its tokenizer as `spiece.model`, which is not read; `tokenizer.json` is"
    )
    assert caught.value.hint == (
        f"`AutoTokenizer.from_pretrained({where}).save_pretrained({where})` of Transformers writes it"
    )
