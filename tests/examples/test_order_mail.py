"""The mails of `examples/order_mail`: exact, the same every time, and tested on what training has not seen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from examples.order_mail import make_data, pools
from examples.order_mail.chatter import MISSPELT
from examples.order_mail.make_data import MARK, SIZES, main, records
from examples.order_mail.orders import is_held_out
from examples.order_mail.pools import part
from tests.examples.reading import DATE, KINDS, Read, read_date, read_mail

Record = dict[str, str]

COUNT, MANY = 400, 2000


@cache
def some(split: str, count: int = COUNT, seed: int = 0) -> list[Record]:
    return list(islice(records(split, seed), count))


def read(record: Record) -> Read:
    assert record["prompt"].endswith(MARK)
    return read_mail(record["prompt"].removesuffix(MARK))


def answer(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(record["completion"])
    return value


@pytest.mark.parametrize(("split", "count"), [("train", MANY), ("valid", COUNT), ("test", COUNT)])
def test_a_mail_says_its_answer_and_nothing_else(split: str, count: int) -> None:
    for record in some(split, count):
        assert read(record).order == answer(record)


def test_an_answer_is_compact_json_behind_a_space() -> None:
    for record in some("test"):
        compact = json.dumps(answer(record), ensure_ascii=False, separators=(",", ":"))
        assert record["completion"] == " " + compact


@pytest.mark.parametrize("split", ["valid", "test"])
def test_no_phrase_of_training_is_used_in_testing(split: str) -> None:
    used = {name: {p for record in some(name) for p in read(record).phrases} for name in ("train", split)}
    all_phrases = {phrase for phrases in KINDS.values() for phrase in phrases}
    assert len(used["train"]) > 0.9 * 0.7 * len(all_phrases)
    assert used["train"] & used[split] <= {"{name}", "{company}"}


Values = Callable[[dict[str, Any]], list[str]]

POOLS: list[tuple[Values, Sequence[str], int]] = [
    (lambda order: [order["name"].split()[0]], pools.FIRST_NAMES, 1000),
    (lambda order: [order["name"].split()[1]], pools.LAST_NAMES, 1000),
    (lambda order: [order["company"].split()[0]] if order["company"] else [], pools.COMPANY_WORDS, 500),
    (
        lambda order: [item["item"].split()[-3] for item in order["items"] if item["item"].count(" ") == 2],
        pools.COLOURS,
        500,
    ),
    (lambda order: [item["item"].split()[-2] for item in order["items"]], pools.MATERIALS, 2000),
    (lambda order: [item["item"].split()[-1] for item in order["items"]], pools.NOUNS, 2000),
    (lambda order: re.findall(r"\d (\w+)", street(order)), pools.STREET_WORDS, 500),
    (lambda order: re.findall(r"(\w+) \d", street(order)), pools.STREETS_BEFORE_NUMBERS, 150),
    (lambda order: [order["address"]["city"]] if order["address"] else [], pools.CITIES, 800),
    (lambda order: re.findall(r"@(\w+)", order["contact"] or ""), pools.MAIL_DOMAINS, 250),
]
"""What an order has of a pool, and how many words that no pool has must stand there in many mails of training."""


def street(order: dict[str, Any]) -> str:
    return order["address"]["street"] if order["address"] else ""


@pytest.mark.parametrize(("values", "pool", "_"), POOLS)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_testing_has_the_values_that_are_held_out(split: str, values: Values, pool: Sequence[str], _: int) -> None:
    used = {value for record in some(split) for value in values(answer(record))}
    held_out = set(part(pool, True))
    assert used <= held_out and len(used) > 0.9 * len(held_out)
    assert not held_out & set(part(pool, False))


@pytest.mark.parametrize(("values", "pool", "least"), POOLS)
def test_training_has_its_part_of_a_pool_and_words_without_end(values: Values, pool: Sequence[str], least: int) -> None:
    used = [value for record in some("train", MANY) for value in values(answer(record))]
    invented = [value for value in used if value not in pool]
    seen = set(used) & set(pool)
    assert seen <= set(part(pool, False)) and len(seen) > 0.9 * len(part(pool, False))
    assert 0.78 < len(invented) / len(used) < 0.92
    assert len(set(invented)) > least


def test_no_word_that_is_held_out_stands_anywhere_in_training() -> None:
    lists = [pool for _, pool, _ in POOLS]
    seen, held_out = ({word for pool in lists for word in letters(" ".join(part(pool, out)))} for out in (False, True))
    held_out -= seen | {word for some in KINDS.values() for phrase in some for word in letters(phrase)}
    assert len(held_out) > 100
    for record in some("train", MANY):
        assert not held_out & letters(record["prompt"])


def letters(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def test_people_and_cities_of_no_order_are_invented_as_often() -> None:
    besides = [value for record in some("train", MANY) for value in read(record).besides]
    known = [word.lower() for word in pools.LAST_NAMES + pools.CITIES]
    for slot in ("name", "city"):
        values = [value.split()[-1] if slot == "name" else value for name, value in besides if name == slot]
        assert 0.78 < sum(value.lower() not in known for value in values) / len(values) < 0.92


def test_no_day_of_training_is_named_in_testing() -> None:
    for split in SIZES:
        days = [day for record in some(split) for day in dates(record["prompt"])]
        assert len(days) > COUNT / 2 and {is_held_out(day) for day in days} == {split != "train"}


def dates(text: str) -> Iterator[date]:
    for match in re.finditer(DATE, text, re.IGNORECASE):
        yield read_date(match[0])


def test_no_mail_comes_twice() -> None:
    prompts = [record["prompt"] for split in SIZES for record in some(split, 1000)]
    assert len(set(prompts)) == len(prompts)


def test_a_seed_gives_the_same_mails_and_another_gives_others() -> None:
    assert some("train", 50) == some("train", 100)[:50]
    assert not {r["prompt"] for r in some("test")} & {r["prompt"] for r in some("test", seed=1)}


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "ca861bd951dda3daa4b94aa04cdeec409f11d702a8e6d4f9bb02b4c8c4bd3f80"),
        ("valid", "8f398a2f1704cb0fde1a0658bcf106085ad7521120c3e1831baab1b58d929f78"),
        ("test", "7c7d075d16a74bb58ade9f34265f4b1f2d31df628f4f43659b1194e6b692bcd5"),
    ],
)
def test_the_mails_stay_what_they_are(split: str, digest: str) -> None:
    """What was trained on them, and measured, can be repeated."""
    assert hashlib.sha256(json.dumps(some(split)).encode()).hexdigest() == digest


def test_the_readme_shows_the_first_mail_of_the_test() -> None:
    (record,) = some("test", 1)
    readme = Path(make_data.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert record["prompt"] + record["completion"] in readme


def test_every_kind_of_answer_comes_often() -> None:
    orders = [answer(record) for record in some("train")]
    for name in ("company", "number", "address", "due", "contact"):
        assert 0.2 < sum(order[name] is None for order in orders) / COUNT < 0.7
    assert {order["priority"] for order in orders} == {"high", "normal", "low"}
    assert {len(order["items"]) for order in orders} == {1, 2, 3}


def test_a_misspelt_word_is_none_that_is_spelt_right() -> None:
    phrases = " ".join(phrase for some in KINDS.values() for phrase in some).lower()
    assert not set(MISSPELT.values()) & set(re.findall("[a-z]+", phrases))


def test_the_command_writes_three_files(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "data"), "--train", "3", "--valid", "2", "--test", "1", "--seed", "5"])
    for split, count in {"train": 3, "valid": 2, "test": 1}.items():
        lines = (tmp_path / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == some(split, count, seed=5)
