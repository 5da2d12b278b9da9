"""Heads trained on what the trunk computes at the time, against the loss written plainly and against features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.batches import batches
from offramp.tune.dense import DenseTrunk
from offramp.tune.features import Features, half
from offramp.tune.heads import Head, Words, new_head
from offramp.tune.live import LiveHeadTrainer
from offramp.tune.loss import FADE
from offramp.tune.samples import Sample
from offramp.tune.settings import HeadSettings, TrainSettings
from offramp.tune.sizes import ON_CPU
from offramp.tune.top import TopHead
from offramp.tune.train import Trainer, judge, lessons_of
from tests.toy import DictSource
from tests.tune.test_layerskip import check_resumes, meter, task
from tests.tune.test_loss import SPEC, WEIGHTS, lm_head, top_probs

LAYERS = {"none": (2, 4), "deep": (0, 2)}
TRAIN = TrainSettings(epochs=2, lr=1e-2, batch_tokens=100, evaluations=4, patience=100)

Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products as small as these are slower on several."""
    torch.set_num_threads(1)


def lesson(count: int) -> list[Sample]:
    """`task`, in which every other sequence is as long as the longest: side by side, one begins where another ends."""
    found = []
    for number, s in enumerate(task(count)):
        more = [(s.token_ids[-1] + i) % SPEC.vocab_size for i in range(1, 14 - len(s.token_ids))]
        found.append(Sample((*s.token_ids, *more), s.prompt_tokens) if number % 2 else s)
    return found


def new_heads(past: Any, *, random: bool) -> list[Head]:
    """Heads as training begins with, or with tensors that are somewhere else."""
    words, settings = Words.of(range(30), lm_head(), SPEC), HeadSettings(adapter_size=8, past=past)
    heads = [new_head(layer, settings, words, SPEC, 0) for layer in LAYERS[past]]
    if random:
        draw = torch.Generator().manual_seed(1)
        for head in heads:
            for tensor in head.tensors.values():
                tensor.detach().add_(0.2 * torch.randn(tensor.shape, generator=draw))
    return heads


def trunk_of(dtype: torch.dtype = torch.float32) -> DenseTrunk:
    return DenseTrunk(SPEC, DictSource(WEIGHTS), {}, dtype)


def make(
    samples: Sequence[Sample],
    past: str,
    train: TrainSettings = TRAIN,
    dtype: torch.dtype = torch.float32,
    *,
    random: bool = True,
) -> LiveHeadTrainer:
    return LiveHeadTrainer(trunk_of(dtype), TopHead(lm_head(), SPEC), new_heads(past, random=random), samples, train)


def gradients(trainer: LiveHeadTrainer) -> Gradients:
    """What is there, and then no more."""
    found = {}
    for head in trainer._heads:
        for name, tensor in head.tensors.items():
            assert tensor.grad is not None, name
            found[f"{head.spec.layer}.{name}"], tensor.grad = tensor.grad.clone(), None
    return found


def step_gradients(trainer: LiveHeadTrainer) -> Gradients:
    trainer._add_gradients(0)
    return gradients(trainer)


def assert_close(found: Gradients, expected: Gradients, tolerance: float = 5e-2) -> None:
    """Equal but for bfloat16."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < tolerance, name


def plain_states(head: Head, tap: Tensor, final: Tensor, scored: Sequence[int], steps: int) -> list[Tensor]:
    """What meets the head's matrix at each step, token by token, of hidden states [tokens, hidden_size]."""
    found: list[Tensor] = []
    made: dict[int, Tensor] = {}
    for _ in range(steps if head.spec.past == "deep" else 1):
        now = {}
        for p in scored:
            if head.spec.past == "none":
                now[p] = head._deep_states(tap[p], None)
                continue
            past = made.get(p - 1, final[p - 1] if p else torch.zeros(SPEC.hidden_size))
            now[p] = head._deep_states(tap[p], past)
        found.append(head._norm(torch.stack([now[p] for p in scored])))
        made = now
    return found


def plain_loss(heads: Sequence[Head], samples: Sequence[Sample], steps: int) -> tuple[Tensor, float]:
    """The loss whose gradient a step is to have, and the mean KL of step 1: one sequence after the other."""
    trunk, total, shown, count = trunk_of(), torch.zeros(()), 0.0, 0
    for sample in samples:
        *taps, final = (h[0] for h in trunk.run(torch.tensor([sample.token_ids]), [*_layers(heads), SPEC.num_layers]))
        probs = top_probs(final[list(sample.scored)])[0][:, :30]
        says = torch.cat((probs, 1 - probs.sum(-1, keepdim=True)), -1)
        for head, tap in zip(heads, taps, strict=True):
            for step, x in enumerate(plain_states(head, tap, final, sample.scored, steps)):
                other = x @ head.tensors["other.weight"].T + head.tensors["other.bias"]
                log_probs = torch.cat((x @ head.matrix.T, other), -1).log_softmax(-1)
                kl = F.kl_div(log_probs, says, reduction="sum")
                total = total + FADE**step * kl
                shown += float(kl.detach()) if step == 0 else 0
        count += len(sample.scored)
    return total / count, shown / count / len(heads)


def _layers(heads: Sequence[Head]) -> list[int]:
    return [head.spec.layer for head in heads]


@pytest.mark.parametrize("past", LAYERS)
def test_gradients_are_those_of_the_loss_written_plainly(past: str) -> None:
    samples = lesson(60)
    trainer = make(samples, past)
    (batch,) = batches(samples, trainer._dealt[0])
    begins = batch.rows[batch.rows.diff(prepend=batch.rows.new_tensor([-2])) == 1] % batch.ids.shape[1] == 0
    assert begins.any(), "some sequence begins with an answer where the one beside it ends"
    loss = trainer._add_gradients(0)
    found = gradients(trainer)
    plain, shown = plain_loss(trainer._heads, [samples[i] for i in trainer._dealt[0]], TRAIN.rollout)
    plain.backward()
    assert loss == pytest.approx(shown, rel=1e-2)
    assert_close(found, gradients(trainer))


@pytest.mark.parametrize("past", LAYERS)
def test_the_trunk_s_own_bfloat16_leaves_gradients_much_the_same(past: str) -> None:
    exact, rough = (make(lesson(60), past, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert_close(step_gradients(rough), step_gradients(exact), 0.1)


def feature_rows(samples: Sequence[Sample], layers: Sequence[int]) -> Features:
    """Features as an executor would store them."""
    trunk = trunk_of()
    runs = [trunk.run(torch.tensor([s.token_ids]), [*layers, SPEC.num_layers]) for s in samples]
    *taps, top = (torch.cat([run[k][0] for run in runs]) for k in range(len(layers) + 1))
    probs, log_sum = top_probs(top)
    scored = np.concatenate([np.isin(np.arange(len(s.token_ids)), s.scored) for s in samples])
    choice = np.where(scored, probs.argmax(-1).numpy(), -1).astype(np.int32)
    stored = {layer: half(tap.numpy()) for layer, tap in zip(layers, taps, strict=True)}
    return Features(stored, half(top.numpy()), choice, log_sum.numpy(), samples)


@pytest.mark.parametrize("past", LAYERS)
def test_held_out_tokens_are_judged_as_on_stored_features(past: str) -> None:
    samples = lesson(500)
    trainer = make(samples, past)
    features = feature_rows(samples, LAYERS[past])
    stored, _ = Trainer(trainer._heads, trainer._words, features, TRAIN)._look()
    entry, scores = trainer._look()
    assert scores == [entry["exits"][str(layer)]["kl"] for layer in LAYERS[past]]
    for layer, expected in stored["exits"].items():
        assert entry["exits"][layer]["kl"] == pytest.approx(expected["kl"], rel=5e-3)
        assert entry["exits"][layer]["agreement"] == pytest.approx(expected["agreement"], abs=0.01)


@pytest.mark.parametrize("step", [2, 3])
def test_later_steps_of_a_rollout_are_those_on_stored_features(step: int) -> None:
    samples = [s for s in lesson(1000) if s.held_out]
    trainer = make(samples, "deep")
    heads, words, features = trainer._heads, trainer._words, feature_rows(samples, LAYERS["deep"])
    lessons = (one for b in batches(samples, range(len(samples))) for one in trainer._lessons(*trainer._run(b)))
    found = judge(heads, words, lessons, step)
    first = judge(heads, words, lessons_of(heads, words, features, features.rows(held_out=True)))
    expected = judge(heads, words, lessons_of(heads, words, features, features.rows(held_out=True)), step)
    for (kl, ours), (stored, theirs), (other, _) in zip(found, expected, first, strict=True):
        assert kl == pytest.approx(stored, rel=5e-3) != pytest.approx(other, rel=5e-3)
        assert ours.agrees.mean() == pytest.approx(theirs.agrees.mean(), abs=0.01)
        assert np.sort(ours.confidence) == pytest.approx(np.sort(theirs.confidence), abs=0.02)


@pytest.mark.parametrize("past", LAYERS)
def test_training_brings_exits_close_to_the_top(tmp_path: Path, past: str) -> None:
    settings = TrainSettings(epochs=10, lr=1e-2, batch_tokens=100, evaluations=8)
    trainer = make(task(300), past, settings, torch.bfloat16, random=False)
    _, before = trainer._look()
    trainer.run(tmp_path / "checkpoint.pt", meter())
    _, after = trainer._look()
    assert all(b < 0.6 * a for a, b in zip(before, after, strict=True))
    history = [[exit["kl"] for exit in entry["exits"].values()] for entry in trainer.progress.history]
    assert after == pytest.approx([min(kls) for kls in zip(*history, strict=True)])


@pytest.mark.parametrize("past", LAYERS)
@pytest.mark.parametrize("stop_at", [1, 9])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, past: str, stop_at: int) -> None:
    check_resumes(lambda: make(task(), past), tmp_path, stop_at)


@pytest.mark.parametrize(("past", "logits"), [("none", 2**21), ("none", 31 * 7), ("deep", 2**21)])
@pytest.mark.parametrize("tokens", [1, 40])
def test_it_does_not_matter_how_much_runs_side_by_side(
    past: str, logits: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(lesson(60), past)
    expected, (_, scores) = step_gradients(trainer), trainer._look()
    monkeypatch.setattr("offramp.tune.sizes.ON_CPU", ON_CPU._replace(tokens=tokens, exit_logits=logits, top_logits=100))
    assert len(list(batches(trainer._samples, trainer._dealt[0]))) > 1
    assert_close(step_gradients(trainer), expected, 2e-2)
    assert trainer._look()[1] == pytest.approx(scores, rel=1e-3)


def test_where_a_part_begins_a_rollout_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """So rows one by one see final states alone, at every step."""
    once = step_gradients(make(lesson(60), "deep", TrainSettings(batch_tokens=100, rollout=1)))
    monkeypatch.setattr("offramp.tune.sizes.ON_CPU", ON_CPU._replace(exit_logits=1))
    thrice = step_gradients(make(lesson(60), "deep", TrainSettings(batch_tokens=100, rollout=3)))
    assert_close(thrice, {name: (1 + FADE + FADE**2) * gradient for name, gradient in once.items()}, 2e-2)
