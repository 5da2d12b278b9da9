"""The lines of `examples/log_triage`: exact, the same every time, and tested on what training has not seen."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from examples.log_triage import words
from examples.log_triage.kinds import KINDS, Kind
from examples.log_triage.make_data import MARK, PLACEHOLDER, SIZES, main, records
from examples.log_triage.words import APART, part

Record = dict[str, str]

COUNT, MANY = 400, 3000

FORMS = {
    "user": r"[a-z][a-z.]*\d*",
    "address": r"\d+\.\d+\.\d+\.\d+",
    "path": r"(?:/[a-z]+)+(?:\.[a-z.]+)?",
    "domain": r"[a-z0-9.]+\.[a-z]+",
    "unit": r"[a-z]+(?:-[a-z]+)?",
    "command": r"/[a-z/0-9]+(?: -?[a-z]+)* [a-z]+",
    "database": r"[a-z]+(?:_[a-z]+|\d)?",
    "image": r"[a-z]+/[a-z]+:[a-z0-9.]+",
    "disk": r"(?:sd|vd)[a-h]|nvme\dn1",
    "nic": r"[a-z]+\d(?:s\d)?",
    "pid": r"\d+",
    "port": r"\d+",
    "n": r"\d+",
    "hex": r"[0-9a-f]{8}",
    "version": r"\d\.\d\.\d",
}
"""What values look like."""


@cache
def some(split: str, count: int = COUNT, seed: int = 0) -> list[Record]:
    return list(islice(records(split, seed), count))


@cache
def pattern(wording: str) -> re.Pattern[str]:
    """What a wording looks like: a value that comes again is the same, unless it is `n`."""
    *parts, last = PLACEHOLDER.split(wording)
    found, seen = "", set()
    for text, name in zip(parts[::2], parts[1::2], strict=True):
        again = name in seen and name != "n"
        group = f"(?P={name})" if again else f"(?:{FORMS[name]})" if name == "n" else f"(?P<{name}>{FORMS[name]})"
        found += re.escape(text) + group
        seen.add(name)
    return re.compile(found + re.escape(last))


def read(record: Record) -> list[tuple[Kind, str, dict[str, str]]]:
    """All that a line may mean: kinds, wordings and values."""
    assert record["prompt"].endswith(MARK)
    line = record["prompt"].removesuffix(MARK)
    return [
        (kind, wording, match.groupdict())
        for kind in KINDS
        for wording in kind.wordings
        if (match := pattern(wording).fullmatch(line))
    ]


def answer(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(record["completion"])
    return value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.category}-{kind.action}-{kind.outcome}")
def test_every_wording_has_what_the_answer_repeats(kind: Kind) -> None:
    needed = set(PLACEHOLDER.findall(kind.summary)) | ({kind.object} if kind.object else set())
    assert len(kind.wordings) == 16 and not PLACEHOLDER.search(kind.advice)
    for wording in kind.wordings:
        assert needed <= set(PLACEHOLDER.findall(wording)) <= set(FORMS), wording


@pytest.mark.parametrize("split", SIZES)
def test_a_line_means_its_answer_and_nothing_else(split: str) -> None:
    for record in some(split):
        meanings = [
            {
                "category": kind.category,
                "action": kind.action,
                "outcome": kind.outcome,
                "severity": kind.severity,
                "user": values.get("user"),
                "address": values.get("address"),
                "object": values.get(kind.object),
                "summary": kind.summary.format(**values),
                "advice": kind.advice,
            }
            for kind, _, values in read(record)
        ]
        assert meanings == [answer(record)], record


def test_an_answer_is_compact_json_behind_a_space() -> None:
    for record in some("test"):
        assert record["completion"] == " " + json.dumps(answer(record), separators=(",", ":"))


def test_wordings_are_for_training_or_for_testing() -> None:
    used = {split: {wording for r in some(split, MANY) for _, wording, _ in read(r)} for split in SIZES}
    held_out = {wording for kind in KINDS for wording in part(kind.wordings, held_out=True)}
    assert used["test"] <= held_out and used["valid"] <= held_out and not used["train"] & held_out
    assert len(used["test"]) > 0.95 * len(held_out)
    assert len(used["train"]) > 0.95 * sum(len(part(kind.wordings, held_out=False)) for kind in KINDS)


def test_testing_has_words_that_training_never_has() -> None:
    assert len(APART) > 2000 and not APART & set(words.SEEN)
    fixed = {word for kind in KINDS for wording in kind.wordings for word in letters(wording)}
    for record in some("train", MANY):
        for _, _, values in read(record):
            assert not {values.get("user"), values.get("database"), values.get("unit")} & APART
    tested = {values["user"] for r in some("test") for _, _, values in read(r) if "user" in values}
    assert {re.sub(r"[^a-z]+$", "", user) for user in tested} & APART - fixed


def letters(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_training_has_words_without_end() -> None:
    users = [values["user"] for r in some("train", MANY) for _, _, values in read(r) if "user" in values]
    assert len(set(users)) > 0.95 * len(users)


def test_no_line_comes_twice() -> None:
    prompts = [record["prompt"] for split in SIZES for record in some(split, 1000)]
    assert len(set(prompts)) > 0.98 * len(prompts)


def test_a_seed_gives_the_same_lines_and_another_gives_others() -> None:
    assert some("train", 50) == some("train", 100)[:50]
    both = {r["prompt"] for r in some("test")} & {r["prompt"] for r in some("test", seed=1)}
    assert len(both) < 0.05 * COUNT


def test_the_command_writes_three_files_and_the_test_lines_stay_as_they_were(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "data"), "--train", "20", "--valid", "10"])
    sizes = {split: len((tmp_path / "data" / f"{split}.jsonl").read_text("utf-8").splitlines()) for split in SIZES}
    assert sizes == {"train": 20, "valid": 10, "test": 500}
    digest = hashlib.sha256((tmp_path / "data" / "test.jsonl").read_bytes()).hexdigest()
    assert digest[:16] == "53d960107ec66622"
