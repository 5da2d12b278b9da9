"""Criteria: each formula, options, and how they are found by name."""

from __future__ import annotations

from typing import Any

import pytest

from offramp.errors import InvalidParameter
from offramp.exits.criteria import BUILT_IN, Criterion, Replay, Signals, make_criterion
from offramp.types.executor import Feature

ALL: dict[Feature, float] = {
    "max_prob": 0.7,
    "margin": 0.4,
    "entropy": 0.25,
    "saturation": 0.9,
    "classifier": 0.6,
}


def signals(boundary: int = 1, token: int | None = 5, earlier: tuple[Signals, ...] = (), index: int = 0) -> Signals:
    return Signals(boundary, boundary * 10, index, token, ALL, earlier)


def one(criterion: Criterion, row: Signals) -> float | None:
    return criterion.confidence([row])[0]


@pytest.mark.parametrize(
    ("name", "confidence"),
    [("max_prob", 0.7), ("margin", 0.4), ("entropy", 0.75), ("saturation", 0.9), ("classifier", 0.6), ("never", None)],
)
def test_confidence_is_read_off_the_features(name: str, confidence: float | None) -> None:
    assert one(make_criterion(name, {}), signals()) == confidence


def test_saturation_has_no_confidence_at_the_first_exit() -> None:
    row = signals()._replace(features={})
    assert one(make_criterion("saturation", {}), row) is None


def test_patience_wants_the_same_token_at_the_exits_before() -> None:
    patient = make_criterion("patience", {"exits": 2})
    same = (signals(1), signals(2))
    assert one(patient, signals(3, earlier=same)) == 1
    assert one(patient, signals(3, token=6, earlier=same)) == 0
    assert one(patient, signals(2, earlier=same[:1])) == 0
    assert one(patient, signals(3, earlier=(signals(1), signals(2, token=6)))) == 0


def test_fixed_is_sure_at_its_layer_only() -> None:
    fixed = make_criterion("fixed", {"layer": 20})
    assert [one(fixed, signals(b)) for b in (1, 2, 3)] == [0, 1, 0]


def test_replay_repeats_the_recorded_layer_of_each_output_token() -> None:
    replay = make_criterion("replay", {"exit_layers": [30, 10]})
    assert one(replay, signals(1, index=0)) is None
    assert one(replay, signals(1, index=1)) == 1
    assert one(replay, signals(1, index=2)) is None


def test_equal_options_make_equal_criteria() -> None:
    assert make_criterion("replay", {"exit_layers": [1, 2]}) == Replay((1, 2))
    assert hash(make_criterion("patience", {})) == hash(make_criterion("patience", {"exits": 1}))


def test_names_are_unique_and_say_what_they_need() -> None:
    assert len({c.name for c in BUILT_IN}) == len(BUILT_IN)
    assert all(c.needs <= set(ALL) for c in BUILT_IN)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("max_probs", {}, "unknown criterion `max_probs`\nhint: did you mean `max_prob`?"),
        ("max_prob", {"exits": 1}, "criterion `max_prob` has no option `exits`\nhint: `max_prob` has no options"),
        ("patience", {"exit": 1}, "criterion `patience` has no option `exit`\nhint: did you mean `exits`?"),
        ("patience", {"exits": 0}, "`exits` must be a whole number of at least 1, not 0"),
        ("fixed", {}, "criterion `fixed` needs the option `layer`\nhint: give `layer` and its value in `options`"),
    ],
)
def test_a_bad_name_or_option_is_refused_with_the_way_out(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        make_criterion(name, options)
    assert str(error.value).startswith(message)
