"""The lines of `examples/log_triage`: exact, the same every time, and tested on what training has not seen."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.log_triage import words
from examples.log_triage.kinds import KINDS, Kind
from examples.log_triage.make_data import MARK, PLACEHOLDER, SIZES, main, record, records
from examples.log_triage.surroundings import PROGRAM, surround
from examples.log_triage.words import APART, HELD_OUT, part

Record = dict[str, str]

COUNT, MANY = 400, 2500

ALL = {"train": 6000, "valid": MANY, "test": MANY}
"""So many records have nearly every wording."""

WORDINGS = 64

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

STAMP = (
    r"(?:(?:(?:<\d+>)?[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d|2026-\d\d-\d\dT\d\d:\d\d:\d\dZ) (?P<host>[a-z]+) "
    r"|\d\d:\d\d:\d\d |\[\d+\.\d+\] )?"
)
"""What a collector of logs writes first, if it does."""

RENAMED = rf"(?P<program>{FORMS['unit']})(?:\[\d+\])?: "
"""The name of another program."""

NUMBERS = ("n", "pid")
"""What may differ where it comes again."""

Meaning = dict[str, str | None]


@cache
def some(split: str, count: int = COUNT, seed: int = 0) -> list[Record]:
    return list(islice(records(split, seed), count))


def body(wording: str) -> str:
    """What a wording looks like: a value that comes again is the same, unless it is a number."""
    *parts, last = PLACEHOLDER.split(wording)
    found, seen = "", set()
    for text, name in zip(parts[::2], parts[1::2], strict=True):
        form = f"(?:{FORMS[name]})" if name in NUMBERS else f"(?P<{name}>{FORMS[name]})"
        found += re.escape(text) + (f"(?P={name})" if name in seen and name not in NUMBERS else form)
        seen.add(name)
    return found + re.escape(last)


def literal(wording: str) -> str:
    """The longest text that every line of a wording has."""
    return max(PLACEHOLDER.split(PROGRAM.sub("", wording))[::2], key=len)


@cache
def pattern(wording: str) -> re.Pattern[str]:
    """What a wording looks like in any surroundings."""
    own = PROGRAM.match(wording)
    start = f"(?:{body(own[0])}|{RENAMED})" if own else f"(?:{RENAMED})?"
    return re.compile(STAMP + start + body(PROGRAM.sub("", wording)))


PATTERNS = [(literal(wording), kind, wording) for kind in KINDS for wording in kind.wordings]


def read(record: Record) -> list[tuple[Kind, str, dict[str, str]]]:
    """All that a line may mean: kinds, wordings and values."""
    assert record["prompt"].endswith(MARK)
    line = record["prompt"].removesuffix(MARK)
    return [
        (kind, wording, match.groupdict())
        for text, kind, wording in PATTERNS
        if text in line and (match := pattern(wording).fullmatch(line))
    ]


def meaning(kind: Kind, values: dict[str, str]) -> Meaning:
    of_kind = {key: getattr(kind, key) for key in ("category", "action", "outcome", "severity", "advice")}
    copied = {key: values.get(key) for key in ("user", "address")}
    return of_kind | copied | {"object": values.get(kind.object), "summary": kind.summary.format(**values)}


def answer(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(record["completion"])
    return value


def name(kind: Kind) -> str:
    return f"{kind.category}-{kind.action}-{kind.outcome}"


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_every_wording_has_what_the_answer_repeats(kind: Kind) -> None:
    needed = set(PLACEHOLDER.findall(kind.summary)) | ({kind.object} if kind.object else set())
    assert len(kind.wordings) == WORDINGS and not PLACEHOLDER.search(kind.advice)
    for wording in kind.wordings:
        assert needed <= set(PLACEHOLDER.findall(wording)) <= set(FORMS), wording


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_a_line_means_its_answer_and_nothing_else(kind: Kind) -> None:
    for held_out in (False, True):
        for wording in part(kind.wordings, held_out):
            for seed in range(4):
                written = record(kind, wording, Random(f"{wording}/{seed}"), held_out)
                found = read(written)
                assert wording in [other for _, other, _ in found], written
                assert all(meaning(k, values) == answer(written) for k, _, values in found), written


def test_no_two_wordings_differ_in_their_program_only_if_one_is_for_testing() -> None:
    seen, apart = (
        {PROGRAM.sub("", wording) for kind in KINDS for wording in part(kind.wordings, held_out)}
        for held_out in (False, True)
    )
    assert not seen & apart


def test_an_answer_is_compact_json_behind_a_space() -> None:
    for written in some("test"):
        assert written["completion"] == " " + json.dumps(answer(written), separators=(",", ":"))


def test_wordings_are_for_training_or_for_testing() -> None:
    used = {split: {wording for r in some(split, ALL[split]) for _, wording, _ in read(r)} for split in SIZES}
    held_out = {wording for kind in KINDS for wording in part(kind.wordings, held_out=True)}
    assert used["test"] <= held_out and used["valid"] <= held_out and not used["train"] & held_out
    assert len(used["test"]) > 0.95 * len(held_out)
    assert len(used["train"]) > 0.95 * sum(len(part(kind.wordings, held_out=False)) for kind in KINDS)


def test_testing_has_words_that_training_never_has() -> None:
    assert len(APART) > 2000 and not APART & set(words.SEEN)
    fixed = {word for kind in KINDS for wording in kind.wordings for word in letters(wording)}
    for written in some("train", MANY):
        for _, _, values in read(written):
            assert not {values.get("user"), values.get("database"), values.get("unit")} & APART
    tested = {values["user"] for r in some("test") for _, _, values in read(r) if "user" in values}
    assert {re.sub(r"[^a-z]+$", "", user) for user in tested} & APART - fixed


def test_half_of_the_lines_are_as_the_wordings_have_them() -> None:
    random = Random(0)
    same = [surround(wording, random, held_out=False) == wording for _, _, wording in PATTERNS]
    assert 0.45 < sum(same) / len(same) < 0.55


def test_surroundings_keep_the_words_of_an_event() -> None:
    random = Random(0)
    for _, _, wording in PATTERNS:
        assert surround(wording, random, held_out=False).endswith(PROGRAM.sub("", wording))


def test_programs_and_hosts_to_test_with_are_never_in_training() -> None:
    names: dict[str, set[str]] = {}
    for split in SIZES:
        found = [values for r in some(split, MANY) for _, _, values in read(r)]
        names[split] = {v[key] for v in found for key in ("program", "host") if v.get(key)}
    assert len(names["train"]) > 500 and len(names["valid"]) > 500
    assert not names["train"] & (names["valid"] | names["test"])
    assert not {word for one in names["train"] for word in letters(one)} & set(HELD_OUT)


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
    assert digest[:16] == "054d5f52e12788cc"
