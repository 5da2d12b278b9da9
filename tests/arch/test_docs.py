"""What the documents promise exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from offramp.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def snippets(page: Path) -> list[str]:
    """Everything set as code: indented and fenced lines, and spans between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^ {4}.*$", text, re.MULTILINE) + blocks.splitlines()
    return lines + re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_exists(page: Path) -> None:
    commands = {m[1] for code in snippets(page) if (m := re.match(r"\s*(?:\$ )?offramp ([a-z]+)\b", code))}
    verbs = {m[1] for code in snippets(page) if (m := re.match(r"\s*(?:\$ )?make ([a-z-]+)\b", code))}
    assert commands - set(COMMANDS) == set()
    assert verbs - TARGETS == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_test_that_a_promise_names_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [row.split("|")[2] for row in text.splitlines() if row.count("|") == 3]
    files = dict(re.findall(r"\[`(test_\w+)`\]\(\.\./([^)]+)\)", text))
    missing, file = [], ""
    for word in (word for row in rows for word in re.findall(r"`([a-z_.]+)`", row)):
        if word.startswith("test_"):
            file = (ROOT / files[word]).read_text(encoding="utf-8")
        elif not re.search("def test_" + word.replace("...", r"\w*") + r"\(", file):
            missing.append(word)
    assert len(files) > 10 and missing == []
