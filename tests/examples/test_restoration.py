"""The passages of `examples/restoration`: whole sentences, spoilt the same way every time, and documents held apart."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from random import Random

import pytest

from examples.restoration import texts
from examples.restoration.make_data import main, records
from examples.restoration.noise import SPELLABLE, misspell, spoil
from examples.restoration.texts import LONGEST, SHORTEST, Document, documents, passages

WORDS = [
    "whale",
    "ship",
    "captain",
    "union",
    "state",
    "people",
    "peace",
    "module",
    "function",
    "returns",
    "value",
    "object",
]


def speech(number: int) -> str:
    """A document of thirty sentences of its own."""
    random = Random(number)
    sentences = (" ".join(random.choices(WORDS, k=random.randint(5, 12))).capitalize() + "." for _ in range(30))
    return " ".join(sentences)


def archive(members: dict[str, str], mode: str) -> bytes:
    """A tar file of these texts."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def debian(content: bytes) -> bytes:
    """A Debian package that holds an archive of files."""
    found = b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0"), ("data.tar.xz", content)):
        found += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    return found


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small packages, which are those that are known."""
    folder = tmp_path / "packages"
    folder.mkdir()
    tgz = archive({**{f"package/data/{1900 + i}_x.txt": speech(i) for i in range(40)}, "package/x.js": "no"}, "w:gz")
    deb = debian(archive({f"./usr/_sources/{i}.rst.txt": speech(100 + i) for i in range(40)}, "w:xz"))
    known = []
    for package, content in ((texts.PACKAGES[0], tgz), (texts.PACKAGES[2], deb)):
        (folder / package.file).write_bytes(content)
        known.append(package._replace(sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(texts, "PACKAGES", tuple(known))
    return folder


def test_documents_of_both_kinds_of_packages_are_read_and_split(packages: Path) -> None:
    found = list(documents(packages))
    assert len(found) == 80 and sum(d.name.endswith(".rst.txt") for d in found) == 40
    assert [sum(d.split == split for d in found) for split in ("train", "valid", "test")] == [72, 4, 4]
    assert {d.text for d in found} == {speech(i) for i in (*range(40), *range(100, 140))}


def test_a_package_that_is_missing_or_another_is_refused(packages: Path) -> None:
    path = packages / texts.PACKAGES[1].file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(SystemExit, match="not the file that is known"):
        list(documents(packages))
    path.unlink()
    with pytest.raises(SystemExit, match="is not there"):
        list(documents(packages))


def test_passages_are_whole_sentences_without_markup() -> None:
    prose = "The :class:`~abc.ABC` class is ``plain``, see :ref:`the docs <here>`. It *works*."
    other = "This has a \u2122 sign in it, so it goes."
    found = list(passages(Document("x", "train", f"{prose}\n\n{other}\n\n.. note::\n\n   {speech(1)}")))
    # Of a link the place it leads to stays, not its title.
    assert found[0] == "The abc.ABC class is plain, see here. It works."
    for passage in found[1:]:
        assert SHORTEST <= len(passage) <= LONGEST and re.fullmatch(r"(?:[A-Z][a-z ]+\. ?)+", passage)


def test_the_same_is_spoilt_the_same_way_and_can_be_told() -> None:
    passage = "Mr. Speaker, the whole Congress--and I mean all of it--has worked; hasn't it?"
    versions = [spoil(passage, Random(seed)) for seed in range(50)]
    assert versions == [spoil(passage, Random(seed)) for seed in range(50)] and len(set(versions)) > 40
    assert all(re.fullmatch(r"[a-z0-9 ]+", version) for version in versions)
    clean = "mr speaker the whole congress and i mean all of it has worked hasnt it"
    near = [abs(len(version) - len(clean)) for version in versions]
    assert max(near) < 16 and sum(near) / len(near) < 6


@pytest.mark.parametrize("seed", range(40))
def test_a_slip_is_one_slip_behind_the_first_letter(seed: int) -> None:
    word = "keyboard"
    found = misspell(word, Random(seed))
    assert found[0] == "k" and abs(len(found) - len(word)) <= 1 and len(word) >= SPELLABLE
    if len(found) == len(word):
        assert sum(a != b for a, b in zip(found, word, strict=True)) in (1, 2)


def test_the_command_writes_the_same_files_again_and_keeps_documents_apart(packages: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        main(["--packages", str(packages), "--out", str(tmp_path / name), "--versions", "2", "--held-out", "9"])
    found = {}
    for split in ("train", "valid", "test"):
        lines = [(tmp_path / name / f"{split}.jsonl").read_text(encoding="utf-8") for name in ("a", "b")]
        assert lines[0] == lines[1]
        found[split] = [json.loads(line) for line in lines[0].splitlines()]
    targets = {split: {r["target"] for r in rows} for split, rows in found.items()}
    assert len(found["valid"]) == len(found["test"]) == 9 and len(found["train"]) == 2 * len(targets["train"])
    assert not targets["train"] & targets["valid"] and not targets["train"] & targets["test"]
    assert len({(r["source"], r["target"]) for r in found["train"]}) > 1.8 * len(targets["train"])


def test_another_seed_is_spoilt_in_another_way(packages: Path) -> None:
    whole = list(documents(packages))
    first, second = ({r["target"]: r["source"] for r in records(whole, "test", 1, seed)} for seed in (0, 1))
    assert first.keys() == second.keys() and sum(first[t] != second[t] for t in first) > 0.9 * len(first)
