"""The mails of `examples/order_mail`: exact, the same every time, and tested on what training has not seen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
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

COUNT = 400


def some(split: str, count: int = COUNT, seed: int = 0) -> list[Record]:
    return list(islice(records(split, seed), count))


def read(record: Record) -> Read:
    assert record["prompt"].endswith(MARK)
    return read_mail(record["prompt"].removesuffix(MARK))


def answer(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(record["completion"])
    return value


@pytest.mark.parametrize("split", SIZES)
def test_a_mail_says_its_answer_and_nothing_else(split: str) -> None:
    for record in some(split):
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


@pytest.mark.parametrize(
    ("values", "pool"),
    [
        (lambda order: [order["name"].split()[0]], pools.FIRST_NAMES),
        (lambda order: [order["name"].split()[1]], pools.LAST_NAMES),
        (lambda order: [order["company"].split()[0]] if order["company"] else [], pools.COMPANY_WORDS),
        (lambda order: [item["item"].split()[-2] for item in order["items"]], pools.MATERIALS),
        (lambda order: [item["item"].split()[-1] for item in order["items"]], pools.NOUNS),
        (lambda order: [order["address"]["city"]] if order["address"] else [], pools.CITIES),
    ],
)
def test_no_value_of_training_is_used_in_testing(
    values: Callable[[dict[str, Any]], list[str]], pool: Sequence[str]
) -> None:
    for split in SIZES:
        used = {value for record in some(split) for value in values(answer(record))}
        allowed = set(part(pool, split != "train"))
        assert used <= allowed and len(used) > 0.9 * len(allowed)
    assert not set(part(pool, True)) & set(part(pool, False))


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


def test_the_mails_stay_what_they_are() -> None:
    """What was trained on them, and measured, can be repeated."""
    text = json.dumps([some(split) for split in SIZES])
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "a7e84e857a76eb9fae020ee0dd0251680a47500437db4cc80cc7787a1f974b64"
    )


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
