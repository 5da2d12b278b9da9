"""Rules that every source file keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHON = sorted(path for folder in ("src", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))
CORE = sorted(path for ending in ("h", "cpp", "inl") for path in (ROOT / "csrc").rglob(f"*.{ending}"))
# A header speaks for the file that fills it in.
PURPOSE = [path for path in CORE if path.suffix == ".h" or not path.with_suffix(".h").exists()]

MAX_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 300, 60, 120


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PYTHON, *CORE], ids=name)
def test_a_file_fits_the_budget(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_function_fits_the_budget(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    sizes = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {f: lines for f, lines in sizes.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", PURPOSE, ids=name)
def test_a_file_of_the_core_says_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("// ")


@pytest.mark.parametrize("path", CORE, ids=name)
def test_a_comment_of_the_core_fits_the_page(path: Path) -> None:
    """The formatter sees to code, and leaves comments alone."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [n for n, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize("path", [path for path in CORE if path.suffix == ".h"], ids=name)
def test_a_header_of_the_core_is_read_once(path: Path) -> None:
    assert "\n#pragma once\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_unpickled_but_what_our_own_processes_say_to_each_other(path: Path) -> None:
    """Files are data: of the readers that can run what they read, only torch's is used, and only in its safe form."""
    text = path.read_text(encoding="utf-8")
    unsafe = re.findall(r"\b(?:pickle|dill|joblib|shelve|marshal|yaml\.load|allow_pickle)\b", text)
    assert not unsafe or name(path) == "src/offramp/serve/messages.py"
    assert all("weights_only=True" in call for call in re.findall(r"torch\.load\([^)]*\)", text))


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in SOURCES}
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
