"""What the probe of `--exits auto` looks at."""

from __future__ import annotations

from offramp.tune.heads_recipe import enough_to_probe
from offramp.tune.probe import PROBE_TOKENS
from offramp.tune.samples import Sample, count_scored


def sample(seed: int, length: int) -> Sample:
    return Sample((seed, *range(length)), 1)


def test_the_probe_has_few_tokens_and_sequences_of_both_kinds() -> None:
    long = [sample(seed, PROBE_TOKENS // 4) for seed in range(400)]
    first_held_out = next(i for i, s in enumerate(long) if s.held_out)
    assert first_held_out > 4  # or the case is none
    assert enough_to_probe(long) == long[: first_held_out + 1]
    short = [sample(seed, 50) for seed in range(2000)]
    some = enough_to_probe(short)
    assert short[: len(some)] == some and PROBE_TOKENS <= count_scored(some) < PROBE_TOKENS + 50
    turned = [*(s for s in long if s.held_out), *(s for s in long if not s.held_out)]
    assert len({s.held_out for s in enough_to_probe(turned)}) == 2
