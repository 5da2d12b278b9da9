"""The files of the playground and the dashboard, and how they are served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from offramp.serve.pages import FOLDER, TYPES, page_router

FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MARKUP = [path for path in FILES if path.suffix == ".html"]
ROUTES = ["/", "/dashboard", *(f"/static/{path.name}" for path in FILES if path.suffix != ".html")]

name = "{0.name}".format


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=page_router().routes)) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_served_has_its_type_and_forbids_everything_foreign(client: TestClient, route: str) -> None:
    answer = client.get(route)
    ending = Path(route).suffix or ".html"
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, TYPES[ending])
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_that_has_a_file_is_told_that_it_is_the_same(client: TestClient) -> None:
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert "Content-Security-Policy" in again.headers
    assert client.get("/", headers={"If-None-Match": '"other"'}).content == first.content


def test_every_file_has_a_tag_of_its_own(client: TestClient) -> None:
    tags = {client.get(route).headers["ETag"] for route in ROUTES}
    assert len(tags) == len(ROUTES)


@pytest.mark.parametrize("path", ["/static/", "/static/../pages.py", "/static/%2e%2e/pages.py", "/static/none.js"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_only_reading_is_allowed(client: TestClient) -> None:
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_of_a_kind_that_is_served_and_not_long(path: Path) -> None:
    assert path.suffix in TYPES
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300
    assert [n for n, line in enumerate(lines, 1) if len(line) > 120] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_names_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?:|[\"'(]//|@import", text) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_no_script_makes_html_or_code_of_text(path: Path) -> None:
    dangers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert re.findall(dangers, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", MARKUP, ids=name)
def test_every_element_that_a_page_s_scripts_ask_for_exists(page: Path) -> None:
    markup = page.read_text(encoding="utf-8")
    there = re.findall(r'\bid="([\w-]+)"', markup)
    asked = {i for script in scripts_of(markup) for i in re.findall(r'(?:\$|ById)\("([\w-]+)"\)', script)}
    assert len(there) == len(set(there))
    assert asked - set(there) == set()
    assert set(re.findall(r'\b(?:for|aria-describedby|href)="#?([a-z]+-[\w-]+)"', markup)) - set(there) == set()


def scripts_of(markup: str) -> list[str]:
    """The scripts of a page, and what they import."""
    todo, found = re.findall(r'src="static/([\w.]+)"', markup), dict[str, str]()
    while todo:
        if (file := todo.pop()) not in found:
            found[file] = (FOLDER / file).read_text(encoding="utf-8")
            todo += re.findall(r'from "\./([\w.]+)"', found[file])
    return list(found.values())


@pytest.mark.parametrize("page", MARKUP, ids=name)
def test_a_page_has_nothing_inline_that_its_policy_forbids(page: Path) -> None:
    markup = page.read_text(encoding="utf-8")
    assert re.findall(r"<style|style=|<script>|\son[a-z]+=", markup) == []


def test_every_script_belongs_to_a_page() -> None:
    used = [script for page in MARKUP for script in scripts_of(page.read_text(encoding="utf-8"))]
    assert {path.read_text(encoding="utf-8") for path in SCRIPTS} == set(used)
