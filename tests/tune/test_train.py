"""Training heads and routers on features made up here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.tune.features import Features
from offramp.tune.heads import Head, Inputs, Words, new_head
from offramp.tune.loop import schedule
from offramp.tune.report import Meter
from offramp.tune.router import train_router
from offramp.tune.samples import Sample
from offramp.tune.settings import HeadSettings, RouterSettings, TrainSettings
from offramp.tune.train import Trainer, curves_of, judge, lessons_of, shuffled
from offramp.tune.vocabulary import frequent_tokens
from tests.tune.test_layerskip import check_resumes
from tests.tune.test_loss import SPEC, lm_head, states, top_probs
from tests.tune.toys import quiet

LAYERS = (2, 4)
SETTINGS = TrainSettings(epochs=3, lr=3e-3, batch_tokens=64, evaluations=6, patience=100)
LONGER = replace(SETTINGS, epochs=8, lr=1e-2)


@pytest.fixture(scope="module")
def features() -> Features:
    """Hidden states at the exits are the final ones, turned around and with noise, more of it at the lower exit."""
    pick = np.random.default_rng(0)
    samples = [Sample(tuple(pick.integers(1, SPEC.vocab_size, 20).tolist()), 5) for _ in range(150)]
    tokens = sum(len(s.token_ids) for s in samples)
    top = 2 * states(tokens, 0)
    probs, log_sum = top_probs(top)
    choice = probs.argmax(-1).numpy().astype(np.int32)
    scored = np.concatenate([np.isin(np.arange(len(s.token_ids)), s.scored) for s in samples])
    choice[~scored] = -1
    turn = torch.linalg.qr(states(SPEC.hidden_size, 1))[0]
    layers = {
        e: (top @ turn + noise * states(tokens, e)).half().numpy() for e, noise in zip(LAYERS, (0.6, 0.1), strict=True)
    }
    return Features(layers, top.half().numpy(), choice, log_sum.numpy(), samples)


def make(features: Features, settings: TrainSettings = SETTINGS, **head: Any) -> tuple[list[Head], Trainer]:
    ids = frequent_tokens(features.choice[features.rows(held_out=False)], 30, SPEC.vocab_size)
    words = Words.of(ids, lm_head(), SPEC)
    heads = [new_head(e, HeadSettings(**{"adapter_size": 32, **head}), words, SPEC, 0) for e in LAYERS]
    return heads, Trainer(heads, words, features, settings)


def meter(update: Any = quiet) -> Meter:
    return Meter(update, "heads", 10_000)


def test_rows_are_the_scored_ones_and_held_out_rows_are_apart(features: Features) -> None:
    train, held = features.rows(held_out=False), features.rows(held_out=True)
    assert sorted([*train, *held]) == np.flatnonzero(features.choice >= 0).tolist()
    starts = np.cumsum([0, *(len(s.token_ids) for s in features.samples)])
    wanted = [starts[i] + p for i, s in enumerate(features.samples) if s.held_out for p in s.scored]
    assert held.tolist() == wanted != []


def test_windows_stay_together_in_a_new_order() -> None:
    rows = np.concatenate([np.arange(3, 50), np.arange(52, 60), np.arange(70, 134)])
    order = shuffled(rows, 32, [0, 1])
    assert sorted(order) == rows.tolist() != order.tolist()
    cuts = np.flatnonzero(np.diff(order) != 1) + 1
    assert sorted(len(window) for window in np.split(order, cuts)) in (
        [8, 15, 32, 64],
        [8, 15, 32, 32, 32],
        [8, 47, 64],
    )
    assert shuffled(rows, 32, [0, 2]).tolist() != order.tolist()


@pytest.mark.parametrize("head", [{}, {"adapter": "linear", "head": "own"}, {"past": "deep"}])
def test_training_brings_exits_close_to_the_top(features: Features, tmp_path: Path, head: dict[str, Any]) -> None:
    heads, trainer = make(features, LONGER, **head)
    before = curves_of(heads, trainer._words, features)
    trainer.run(tmp_path / "checkpoint.pt", meter())
    after = curves_of(heads, trainer._words, features)
    assert all(b.kl < 0.5 * a.kl and b.agreement > a.agreement for a, b in zip(before, after, strict=True))
    assert after[1].agreement > after[0].agreement
    assert after[1].at_precision[0.95].share > 0.05


@pytest.mark.parametrize("stop_at", [1, 7, 40])
def test_interrupted_and_resumed_equals_uninterrupted(features: Features, tmp_path: Path, stop_at: int) -> None:
    check_resumes(lambda: make(features)[1], tmp_path, stop_at)


def test_training_stops_when_nothing_improves_and_keeps_the_best(features: Features, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=25, lr=0.5, batch_tokens=64, evaluations=100, patience=1)
    heads, trainer = make(features, settings)
    trainer.run(tmp_path / "checkpoint.pt", meter())
    history = trainer.progress.history
    assert len(history) < 50
    for curve in curves_of(heads, trainer._words, features):
        scores = [entry["exits"][str(curve.layer)]["kl"] for entry in history]
        assert curve.kl == pytest.approx(min(scores))
        assert min(scores) < scores[-1]


def test_judging_counts_what_the_head_would_choose(features: Features) -> None:
    heads, trainer = make(features)
    rows, ids = features.rows(held_out=True), trainer._words.ids.tolist()
    _, judged = judge(heads, trainer._words, lessons_of(heads, trainer._words, features, rows))[1]
    logits = heads[1].logits(Inputs(torch.from_numpy(features.layers[4][rows].astype(np.float32))))
    for i, row in enumerate(logits.softmax(-1)):
        winner = int(row.argmax())
        silent = winner == len(ids)
        assert judged.confidence[i] == pytest.approx(0 if silent else float(row[winner]), abs=1e-6)
        assert judged.agrees[i] == (not silent and ids[winner] == features.choice[rows[i]])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_router_tells_agreement_from_disagreement(features: Features, tmp_path: Path, kind: Any) -> None:
    heads, trainer = make(features, LONGER)
    trainer.run(tmp_path / "checkpoint.pt", meter())
    for head in heads:
        for tensor in head.tensors.values():
            tensor.requires_grad_(False)
    settings = RouterSettings(router=kind, router_epochs=30, router_size=32, router_lr=1e-2)
    router = train_router(heads[0], trainer._words, features, settings, 10_000, meter())
    confidence, agrees = router.judged
    assert router.loss < 0.67  # a coin has ln 2 = 0.69
    assert confidence[agrees].mean() > confidence[~agrees].mean() + 0.02
    lessons = lessons_of(heads[:1], trainer._words, features, features.rows(held_out=True))
    _, judged = judge(heads[:1], trainer._words, lessons)[0]
    assert (confidence[judged.confidence == 0] == 0).all()


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [schedule(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[5] == 1 and rates[100] == pytest.approx(0)
    assert rates[5:] == sorted(rates[5:], reverse=True)
