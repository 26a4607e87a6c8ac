"""The pages' files over HTTP: what they are sent with, and that nothing else can be had."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from servers import running

from torchless.server import ServerSettings
from torchless.server.routes import pages

FOLDER = Path(pages.__file__).parent.parent / "ui"


@pytest.mark.parametrize(
    "path", ["/", "/dashboard", *(f"/ui/{path.name}" for path in sorted(FOLDER.iterdir()))]
)
def test_every_file_comes_with_a_strict_policy(server, path):
    response = httpx.get(server.url + path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-type"].startswith(("text/", "image/svg+xml"))
    again = httpx.get(server.url + path, headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


@pytest.mark.parametrize(
    "path",
    ["/ui/nosuch.js", "/ui/../app.py", "/ui/..%2fapp.py", "/ui/%2e%2e/app.py", "/ui/", "/ui/sub/chat.js"],
)
def test_nothing_else_can_be_had(server, path):
    response = httpx.get(server.url + path)
    assert response.status_code == 404 and "import" not in response.text


def test_pages_need_no_key_but_what_they_ask_for_does(stories):
    with running(stories, ServerSettings(api_keys=("secret",))) as server:
        assert httpx.get(server.url + "/").status_code == 200
        assert httpx.get(server.url + "/ui/chat.js").status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert httpx.get(server.url + path).status_code == 401
            key = {"Authorization": "Bearer secret"}
            assert httpx.get(server.url + path, headers=key).status_code == 200


def test_pages_refer_to_nothing_outside_and_build_no_markup_of_text():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        foreign = re.findall(r"""(?:src|href|url|import|from)\s*[=(]?\s*["']?(?:https?:)?//[^\s"']+""", text)
        assert [link for link in foreign if "www.w3.org" not in link] == [], path.name
        if path.suffix == ".js":
            code = re.sub(r"//[^\n]*", "", text)
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", code
            )
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", text), path.name


def test_every_file_that_a_page_names_is_there():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        named = re.findall(r'"/ui/([\w.]+)"', text) + re.findall(r'from "\./([\w.]+)"', text)
        assert [name for name in named if not (FOLDER / name).is_file()] == []
