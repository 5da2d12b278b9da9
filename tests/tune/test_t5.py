"""The T5 that is trained, against Transformers', and its fill against an obvious twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.errors import InvalidParameter, Unsupported
from offramp.models import expected_tensors, relative_buckets, t5_spec_from_hf
from offramp.models.t5 import FeedForward
from offramp.tune.t5 import DenseT5
from offramp.tune.t5_files import config_of, read_t5
from offramp.tune.t5_shape import new_weights, parse_shape
from offramp.tune.t5_steps import T5Writer
from tests.models.t5_toys import save_t5
from tests.models.toys import save_model
from tests.tune.t5_toys import SPEC, as_transformers, ragged, toy_weights


@pytest.mark.parametrize("activation", ["gated-gelu", "relu"])
def test_logits_and_hidden_states_are_those_of_transformers(activation: FeedForward) -> None:
    spec = replace(SPEC, feed_forward=activation)
    weights = toy_weights(spec)
    model, other = DenseT5(spec, weights, torch.float32), as_transformers(spec, weights)
    source, lengths, given = ragged(spec)
    mask = (torch.arange(30) < lengths[:, None]).long()
    with torch.no_grad():
        wanted = other(input_ids=source, attention_mask=mask, decoder_input_ids=given, output_hidden_states=True)
        encoded = model.encode(source, lengths)
        states = model.decode(given, encoded, range(4))
        torch.testing.assert_close(model.logits(states[-1]), wanted.logits, atol=1e-5, rtol=1e-5)
        for row, length in enumerate(lengths):
            own, others = encoded.states[row, :length], wanted.encoder_last_hidden_state[row, :length]
            torch.testing.assert_close(own, others, atol=1e-5, rtol=1e-5)
        # Transformers norms the last one.
        for own, others in zip(states[:-1], wanted.decoder_hidden_states[:-1], strict=True):
            torch.testing.assert_close(own, others, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers() -> None:
    weights = {name: t.requires_grad_() for name, t in toy_weights().items()}
    model, other = DenseT5(SPEC, weights, torch.float32), as_transformers(SPEC, weights)
    source, lengths, given = ragged()
    mask = (torch.arange(30) < lengths[:, None]).long()
    following = given.roll(-1, 1)
    other(input_ids=source, attention_mask=mask, decoder_input_ids=given, labels=following).loss.backward()
    logits = model.logits(model.decode(given, model.encode(source, lengths), [3])[0])
    F.cross_entropy(logits.flatten(0, 1), following.flatten()).backward()
    found = dict(other.named_parameters())
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.grad, found[name].grad, atol=1e-6, rtol=1e-4)


def test_buckets_of_far_positions_widen() -> None:
    apart = torch.arange(-60, 61) + 128
    one_way = torch.from_numpy(relative_buckets(32, 128, bidirectional=False))[apart]
    assert one_way[60:].tolist() == [0] * 61 and one_way[44:60].tolist() == list(range(16, 0, -1))
    both = torch.from_numpy(relative_buckets(32, 128, bidirectional=True))[apart]
    assert int(both.max()) == 16 + 13 and int(both[:61].max()) == 13  # 8 + 8 log(60 / 8) / log(128 / 8) is 13.8


def twin(model: DenseT5, source: Tensor, given: Tensor, exits: list[int]) -> Tensor:
    """Final hidden states of one sequence, a token at a time and a head at a time, with K and V in lists: layers above
    the exit of a token project its K and V from the hidden state that it left with. `exits`: layers each token runs."""
    w, spec = model.weights, model.spec
    one_way = torch.from_numpy(relative_buckets(spec.num_buckets, spec.max_distance, bidirectional=False))
    length = torch.tensor([len(source)])
    memory = model.encode(source[None], length).states[0]
    cache: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(spec.num_layers)]
    finals = []

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean() + spec.rms_norm_eps) * w[name]

    def attend(x: Tensor, prefix: str, kv: list[tuple[Tensor, Tensor]], bias: Tensor | None) -> Tensor:
        outs = []
        q = w[f"{prefix}q.weight"] @ x
        for head in range(spec.num_heads):
            part = slice(head * spec.head_dim, (head + 1) * spec.head_dim)
            scores = torch.stack([q[part] @ k[part] for k, _ in kv])
            scores = scores if bias is None else scores + bias[:, head]
            outs.append(scores.softmax(0) @ torch.stack([v[part] for _, v in kv]))
        return w[f"{prefix}o.weight"] @ torch.cat(outs)

    for place, token in enumerate(given.tolist()):
        hidden = w["shared.weight"][token]
        for layer in range(spec.num_layers):
            prefix = f"decoder.block.{layer}.layer."
            x = norm(hidden, f"{prefix}0.layer_norm.weight")
            own = f"{prefix}0.SelfAttention."
            cache[layer].append((w[f"{own}k.weight"] @ x, w[f"{own}v.weight"] @ x))
            if layer >= exits[place]:
                continue
            table = w["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
            near = table[one_way[(torch.arange(place + 1) - place).clamp_min(-spec.max_distance) + spec.max_distance]]
            hidden = hidden + attend(x, own, cache[layer], near)
            x, cross = norm(hidden, f"{prefix}1.layer_norm.weight"), f"{prefix}1.EncDecAttention."
            pairs = [(w[f"{cross}k.weight"] @ m, w[f"{cross}v.weight"] @ m) for m in memory]
            hidden = hidden + attend(x, cross, pairs, None)
            x, mlp = norm(hidden, f"{prefix}2.layer_norm.weight"), f"{prefix}2.DenseReluDense."
            inner = F.gelu(w[f"{mlp}wi_0.weight"] @ x, approximate="tanh") * (w[f"{mlp}wi_1.weight"] @ x)
            hidden = hidden + w[f"{mlp}wo.weight"] @ inner
        finals.append(hidden)
    return torch.stack(finals)


def test_tokens_that_leave_are_filled_as_in_the_twin() -> None:
    model = DenseT5(SPEC, toy_weights(), torch.float32)
    source, _, given = ragged()
    exits = [int(e) for e in torch.randint(0, 4, (26,), generator=torch.Generator().manual_seed(2))]
    assert set(exits) == {0, 1, 2, 3}
    runs = torch.tensor(exits)
    with torch.no_grad():
        encoded = model.encode(source[:1], torch.tensor([30]))
        (found,) = model.decode(given[:1], encoded, [3], lambda layer, hidden: (runs <= layer)[None])
        torch.testing.assert_close(found[0], twin(model, source[0], given[0], exits), atol=1e-5, rtol=1e-5)


def test_a_shape_says_what_a_new_model_is_like_or_what_is_wrong() -> None:
    spec = parse_shape("layers=2,width=64")
    assert (spec.num_encoder_layers, spec.num_layers, spec.hidden_size, spec.vocab_size) == (2, 16, 64, 4096)
    assert t5_spec_from_hf(config_of(spec), ("shared.weight",)) == spec
    for text, said in (
        ("layer=2", "no `layer`"),
        ("layers=two", "whole number"),
        ("layers=0", "layers"),
        ("decoder_layers=1", "at least 2"),
        ("vocabulary=299", "at least 300"),
    ):
        with pytest.raises(InvalidParameter, match=said):
            parse_shape(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"untied": True}, "not tied"),
        ({"decoder_start_token_id": 3}, "this model begins with 3 and ends with 1"),
        ({"eos_token_id": [1, 2]}, "ends with 1, 2"),
        ({"num_decoder_layers": 1}, "at least two layers"),
    ],
)
def test_a_t5_that_cannot_be_trained_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    save_t5(tmp_path, **changes)
    with pytest.raises(Unsupported, match=said):
        read_t5(str(tmp_path))


def test_a_decoder_only_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(Unsupported, match="decoder-only"):
        read_t5(str(tmp_path))


def test_what_comes_with_offramp_is_read_by_name() -> None:
    spec, weights = read_t5("t5-restore")
    assert spec == parse_shape("layers=6,inner=1024")
    assert {name: tuple(t.shape) for name, t in weights.items()} == expected_tensors(spec)


def test_first_weights_have_t5s_spread() -> None:
    spec = parse_shape("layers=1,decoder_layers=2")
    weights = new_weights(spec, 3)
    assert {name: tuple(t.shape) for name, t in weights.items()} == expected_tensors(spec)
    assert float(weights["shared.weight"].std()) == pytest.approx(1, rel=0.01)
    spread = float(weights["decoder.block.1.layer.1.EncDecAttention.q.weight"].std())
    assert spread == pytest.approx((256 * 64) ** -0.5, rel=0.02)


def test_step_by_step_is_as_all_at_once_whichever_tokens_leave() -> None:
    model = DenseT5(SPEC, toy_weights(), torch.float32)
    source, lengths, given = ragged()
    runs = torch.randint(1, 4, given.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        encoded = model.encode(source, lengths)
        (wanted,) = model.decode(given, encoded, [3], lambda layer, hidden: runs <= layer)
        writer, kept = T5Writer(model, encoded, 26), torch.arange(3)
        for place in range(26):
            if place == 10:
                kept = torch.tensor([0, 2])
                writer.keep(kept)
            now = runs[kept, place]
            found = writer.step(given[kept, place], lambda layer, hidden, now=now: now <= layer)  # type: ignore[misc]
            torch.testing.assert_close(found, wanted[kept, place], atol=1e-5, rtol=1e-5)
