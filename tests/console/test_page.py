"""The page's files and how they are answered: nothing from outside, nothing inline, nothing that is not ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dolmen.console import mount

STATIC = resources.files("dolmen.console").joinpath("static")
FILES = sorted(entry.name for entry in STATIC.iterdir())
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture(scope="module")
def client(serve_app: Callable[[FastAPI], Any]) -> Iterator[httpx.Client]:
    app = FastAPI()
    mount(app)
    with httpx.Client(base_url=serve_app(app).address) as opened:
        yield opened


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of_page() -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(STATIC.joinpath("index.html").read_text())
    return parser.tags


def test_the_page_is_answered_at_the_root_with_a_strict_policy(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
def test_each_file_is_answered_with_its_type_and_the_policy(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/console/{name}")
    assert answer.status_code == 200
    assert answer.content == STATIC.joinpath(name).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_file_that_has_not_changed_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/console/main.js")
    again = client.get("/console/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize(
    "path", ["page.py", "../page.py", "..%2fpage.py", "%2e%2e/page.py", "index.html", "nothing.js"]
)
def test_names_that_are_not_the_pages_own_are_not_answered(client: httpx.Client, path: str) -> None:
    assert client.get(f"/console/{path}").status_code == 404


def test_the_page_stays_out_of_the_api_document(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["paths"] == {}


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_an_outside_address(name: str) -> None:
    text = STATIC.joinpath(name).read_text().replace(SVG_NAMESPACE, "")
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|@import|url\((?!#)", text) == []


def test_the_page_holds_no_inline_script_style_or_handler() -> None:
    for tag, attributes in tags_of_page():
        assert tag != "style"
        assert tag != "script" or attributes.get("src"), "a script without a file"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_each_field_and_part_of_the_page_has_a_name_for_screen_readers() -> None:
    tags = tags_of_page()
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label" and "for" in attributes}
    assert labelled <= ids
    for tag, attributes in tags:
        for name in ("aria-labelledby", "aria-controls", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in ids
        if tag == "section":
            assert "aria-labelledby" in attributes
        if tag == "input" and attributes.get("type") != "radio":
            assert attributes["id"] in labelled


def test_modules_stay_small_and_import_only_each_other() -> None:
    for name in FILES:
        if name.endswith(".js"):
            text = STATIC.joinpath(name).read_text()
            assert len(text.splitlines()) <= 300, name
            imported = re.findall(r'^import .* from "([^"]+)";', text, re.MULTILINE)
            assert all(one.startswith("./") and one[2:] in FILES for one in imported), name
            assert "innerHTML" not in text, f"{name}: text goes in as text, never as markup"
