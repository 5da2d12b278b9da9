"""Which sequences go into a step, and how they lie side by side."""

from __future__ import annotations

from collections import Counter

import pytest

from offramp.tune.batches import batches, deal
from offramp.tune.sizes import ON_CPU
from tests.tune.test_features import some_samples


def test_every_epoch_deals_every_sample_once_in_an_order_of_its_own() -> None:
    samples, numbers = some_samples(), list(range(0, 40, 2))
    steps = deal(samples, numbers, tokens=50, epochs=3, seed=0)
    flat = [number for step in steps for number in step]
    assert Counter(flat) == dict.fromkeys(numbers, 3)
    assert flat[:20] != flat[20:40]
    for step in steps[:-1]:
        scored = [len(samples[i].scored) for i in step]
        assert sum(scored) >= 50 > sum(scored[:-1])


@pytest.mark.parametrize("most", [10, 100, 10_000])
def test_a_batch_says_where_answers_are_chosen(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.tune.sizes.ON_CPU", ON_CPU._replace(tokens=most))
    samples, numbers = some_samples(), [3, 30, 7, 21, 12]
    found = list(batches(samples, numbers))
    assert sorted(i for batch in found for i in batch.numbers) == sorted(numbers)
    for batch in found:
        assert len(batch.numbers) == 1 or batch.ids.numel() <= most
        chosen = [
            (samples[i].token_ids[p], samples[i].token_ids[p + 1]) for i in batch.numbers for p in samples[i].scored
        ]
        pairs = zip(batch.ids.flatten()[batch.rows].tolist(), batch.next.tolist(), strict=True)
        assert list(pairs) == chosen
