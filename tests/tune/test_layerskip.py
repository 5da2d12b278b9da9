"""Training a trunk adapter with its exits, on a toy in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.batches import batches
from offramp.tune.dense import DenseTrunk, skip_none
from offramp.tune.heads import Inputs, Words, new_head
from offramp.tune.layerskip import TrunkTrainer, active_exits, drop_layers
from offramp.tune.loop import Loop
from offramp.tune.lora import new_factors
from offramp.tune.report import Meter
from offramp.tune.samples import Sample
from offramp.tune.settings import HeadSettings, TrainSettings, TrunkSettings
from offramp.tune.sizes import ON_CPU
from offramp.tune.top import TopHead
from tests.toy import DictSource
from tests.tune.test_loss import SPEC, WEIGHTS, lm_head
from tests.tune.toys import quiet

LAYERS = (2, 4)
TRAIN = TrainSettings(epochs=2, lr=1e-2, batch_tokens=100, evaluations=4, patience=100)
TRUNK = TrunkSettings(lora_rank=8)
SHAPES = {name: array.shape for name, array in WEIGHTS.items()}


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products as small as these are slower on several."""
    torch.set_num_threads(1)


def task(count: int = 150) -> list[Sample]:
    """Counting up from the last token of a prompt."""
    pick, size = np.random.default_rng(0), SPEC.vocab_size
    prompts = [pick.integers(1, size, pick.integers(1, 6)).tolist() for _ in range(count)]
    answers = [[(p[-1] + i) % size for i in range(1, 9)] for p in prompts]
    return [Sample((*p, *a), len(p)) for p, a in zip(prompts, answers, strict=True)]


def make(
    samples: Sequence[Sample],
    distil: float = 0.0,
    train: TrainSettings = TRAIN,
    trunk: TrunkSettings = TRUNK,
    **head: Any,
) -> TrunkTrainer:
    words = Words.of(range(30), lm_head(), SPEC)
    heads = [new_head(e, HeadSettings(**{"adapter": "none", **head}), words, SPEC, 0) for e in LAYERS]
    factors = new_factors(SHAPES, SPEC.num_layers, trunk.lora_rank, seed=0)
    dense, top = DenseTrunk(SPEC, DictSource(WEIGHTS), factors), TopHead(lm_head(), SPEC)
    return TrunkTrainer(dense, top, heads, samples, train, trunk, distil)


def meter(update: Any = quiet) -> Meter:
    return Meter(update, "layerskip", 10_000)


def test_training_learns_the_task_at_the_top_and_brings_the_exits_to_it(tmp_path: Path) -> None:
    trainer = make(task(), train=TrainSettings(epochs=8, lr=2e-2, batch_tokens=100, evaluations=8))
    before, (score,) = trainer._look()
    trainer.run(tmp_path / "checkpoint.pt", meter())
    after, (better,) = trainer._look()
    assert better < 0.5 * score and after["top"] < 0.5 * before["top"]
    for layer in map(str, LAYERS):
        assert after["exits"][layer]["kl"] < 0.7 * before["exits"][layer]["kl"]


def test_with_distillation_the_top_starts_at_no_loss_and_stays_near(tmp_path: Path) -> None:
    samples = task()
    trainer = make(samples, 1.0)
    before, _ = trainer._look()
    assert before["top"] == pytest.approx(0, abs=0.01)
    trainer.run(tmp_path / "checkpoint.pt", meter())
    after, _ = trainer._look()
    forgetful = make(samples)
    forgetful.run(tmp_path / "other.pt", meter())
    for name, tensor in forgetful._trunk.factors.items():
        trainer._trunk.factors[name].detach().copy_(tensor.detach())
    forgot, _ = trainer._look()
    assert after["top"] < 0.2 * forgot["top"]
    assert after["exits"]["2"]["kl"] < before["exits"]["2"]["kl"]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_gradients_are_those_of_the_loss_written_plainly(share: float) -> None:
    samples = task(60)
    trainer = make(samples, share)
    for name, factor in trainer._trunk.factors.items():
        if name.endswith("lora_b"):
            factor.detach().normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    numbers = trainer._dealt[0]
    loss = trainer._add_gradients(0)
    found = {name: t.grad for name, t in trainer._parts[0].items()}
    for tensor in trainer._parts[0].values():
        tensor.grad = None
    plain = plain_loss(trainer, [samples[i] for i in numbers], share)
    plain.backward()
    assert loss == pytest.approx(float(plain.detach()), rel=2e-2)
    for name, tensor in trainer._parts[0].items():
        gradient = found[name]
        assert gradient is not None and tensor.grad is not None, name
        assert float((gradient - tensor.grad).norm() / tensor.grad.norm()) < 0.1, name  # bfloat16


def plain_loss(trainer: TrunkTrainer, samples: Sequence[Sample], share: float) -> Tensor:
    """The mean loss of the answer tokens, one sequence after the other, in float32."""
    trunk, top = DenseTrunk(SPEC, DictSource(WEIGHTS), trainer._trunk.factors, torch.float32), trainer._top
    original = DenseTrunk(SPEC, DictSource(WEIGHTS), {}, torch.float32)
    ids, total, count = trainer._words.ids, torch.zeros(()), 0
    for sample in samples:
        rows, tokens = list(sample.scored), torch.tensor([sample.token_ids])
        *taps, final = (h[0, rows] for h in trunk.run(tokens, trainer._taps))
        log_probs = (top.states(final) @ top.matrix.T).log_softmax(-1)
        (told,) = original.run(tokens, (SPEC.num_layers,))
        before = (top.states(told[0, rows]) @ top.matrix.T).softmax(-1)
        following = torch.tensor([sample.token_ids[p + 1] for p in rows])
        total = total + (1 - share) * F.nll_loss(log_probs, following, reduction="sum")
        total = total + share * F.kl_div(log_probs, before, reduction="sum")
        probs = log_probs.detach().exp()[:, ids]
        says = torch.cat((probs, 1 - probs.sum(-1, keepdim=True)), -1)
        for head, tap in zip(trainer._heads, taps, strict=True):
            (x,) = head.rollout(Inputs(tap))
            other = x @ head.tensors["other.weight"].T + head.tensors["other.bias"]
            logits = torch.cat((x @ head.matrix.T, other), -1)
            total = total + 0.25 * F.kl_div(logits.log_softmax(-1), says, reduction="sum")
        count += len(rows)
    return total / count


@pytest.mark.parametrize("trunk", [TRUNK, TrunkSettings(lora_rank=4, layer_dropout=0.5, curriculum="rotational")])
@pytest.mark.parametrize("stop_at", [1, 9])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, trunk: TrunkSettings, stop_at: int) -> None:
    check_resumes(lambda: make(task(), 0.5, trunk=trunk), tmp_path, stop_at)


def check_resumes(new: Callable[[], Loop], folder: Path, stop_at: int) -> None:
    """A trainer that is interrupted after so many reports and goes on ends as one that is left alone."""
    whole = new()
    whole.run(folder / "whole.pt", meter())
    told = 0

    def interrupt(done: int, total: int, text: str) -> None:
        nonlocal told
        told += 1
        if told > stop_at:
            raise Interrupted

    with pytest.raises(Interrupted):
        new().run(folder / "cut.pt", meter(interrupt))
    again = new()
    again.run(folder / "cut.pt", meter())
    assert again.progress.history == whole.progress.history
    for ours, theirs in zip(again._parts, whole._parts, strict=True):
        assert all(torch.equal(t, theirs[name]) for name, t in ours.items())


@pytest.mark.parametrize(
    ("head", "most"), [({"adapter": "mlp", "adapter_size": 8}, 40), ({"norm": "shared", "head": "own"}, 1024)]
)
def test_heads_of_every_kind_learn_in_batches_of_any_size(
    head: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp.tune.sizes.ON_CPU", ON_CPU._replace(tokens=most))
    trainer = make(task(60), **head)
    trainer._step()
    assert all(tensor.grad is not None for tensor in trainer._parts[0].values())


def test_untrained_factors_leave_the_top_as_it_is() -> None:
    samples = task(60)
    trainer = make(samples)
    plain = DenseTrunk(SPEC, DictSource(WEIGHTS), {})
    for batch in batches(samples, range(5)):
        for ours, theirs in zip(trainer._trunk.run(batch.ids, (2, 6)), plain.run(batch.ids, (2, 6)), strict=True):
            assert torch.equal(ours, theirs)


def test_curricula() -> None:
    assert [active_exits("all", step, 12, 3) for step in (0, 11)] == [[0, 1, 2]] * 2
    assert [active_exits("rotational", step, 12, 3) for step in range(4)] == [[0], [1], [2], [0]]
    gradual = [active_exits("gradual", step, 12, 3) for step in range(12)]
    assert gradual == [[2]] * 2 + [[1, 2]] * 2 + [[0, 1, 2]] * 8


def test_layers_are_dropped_more_often_the_deeper_they_lie() -> None:
    assert drop_layers(0.0, 6, 4, [0]) is skip_none
    skip = drop_layers(0.5, 6, 4000, [0])
    shares = [1.0 if (some := skip(layer)) is None else len(some) / 4000 for layer in range(6)]
    expected = [1 - 0.5 * (2 ** (layer / 5) - 1) for layer in range(6)]
    assert shares == pytest.approx(expected, abs=0.03)
