"""The search for exits by successive halving (`scripts/search_exits.py`)."""

from __future__ import annotations

from typing import Any

import pytest

from offramp.exits.pack import ExitSpec
from scripts.search_exits import CANDIDATES, halve, layer_size, options_of, price, search
from tests.toy import toy_spec

SPEC = toy_spec()
FULL = SPEC.num_layers + SPEC.vocab_size * SPEC.hidden_size / layer_size(SPEC)


def test_an_exit_that_nobody_takes_costs_its_test() -> None:
    test = (96 + 32 * SPEC.hidden_size) / layer_size(SPEC)
    assert price(ExitSpec(1), 0.0, 96, 32, SPEC) == pytest.approx(FULL + test)


def test_who_leaves_saves_the_layers_above_and_pays_for_their_k_and_v() -> None:
    fill = 2 * SPEC.num_kv_heads * SPEC.head_dim * SPEC.hidden_size / layer_size(SPEC)
    saved = FULL - 1 - (SPEC.num_layers - 1) * fill
    assert price(ExitSpec(1), 0.5, 0, 0, SPEC) == pytest.approx(FULL - 0.5 * saved)


def test_behind_a_router_only_who_leaves_is_scored() -> None:
    asked, routed = (price(ExitSpec(1, classifier=kind), 0.25, 0, 64, SPEC) for kind in ("none", "linear"))
    assert asked - routed == pytest.approx(0.75 * 64 * SPEC.hidden_size / layer_size(SPEC))


def test_the_better_half_goes_on() -> None:
    assert halve({"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 5.0}) == ["b", "c"]
    assert halve({"a": 3.0}) == ["a"]


def test_of_heads_the_best_exit_goes_on_and_a_trunk_keeps_its_exits() -> None:
    name, before = "heads linear 8192, 12 to 25", {"prices": {"12": 40.0, "20": 35.0, "25": 36.0}}
    assert options_of(name, None) == CANDIDATES[name]
    assert options_of(name, before) == CANDIDATES[name].replace("12,16,20,25", "20")
    assert options_of("layerskip, 8 and 16", before) == CANDIDATES["layerskip, 8 and 16"]


def test_a_search_goes_on_where_it_stopped_and_without_what_failed() -> None:
    asked: list[tuple[int, str]] = []

    def run(tokens: int, name: str) -> dict[str, Any]:
        asked.append((tokens, name))
        return {"failed": 1} if name == "a" else {"price": float(ord(name))}

    known: dict[str, dict[str, Any]] = {"100": {"b": {"price": 0.0}}}
    told = list(search(["a", "b", "c", "d", "e"], 3, 100, known, run, 1))
    assert asked == [(100, "a"), (100, "c"), (100, "d"), (100, "e"), (200, "b"), (200, "c"), (400, "b")]
    assert told == [(str(tokens), name) for tokens, name in asked]
    assert known["400"] == {"b": {"price": 98.0}}


def test_every_candidate_is_a_recipe_with_exits() -> None:
    assert all("--recipe " in options and "--exits " in options for options in CANDIDATES.values())
