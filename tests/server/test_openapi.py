"""The OpenAPI document names every path and every field that the server reads; and packaging fits the command line."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def document(server):
    return httpx.get(f"{server.url}/openapi.json").json()


def test_every_path_is_documented_with_its_fields(document, server):
    routes = [route for route in server.application.routes if getattr(route, "methods", None)]
    described = {route.path.replace(":path}", "}") for route in routes if hasattr(route, "summary")}
    assert described <= document["paths"].keys() and len(document["paths"]) > 20
    chat = document["paths"]["/v1/chat/completions"]["post"]
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    fields = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    assert {"messages", "tools", "top_logprobs", "reasoning_effort"} <= fields.keys()
    assert all(operation["summary"] for path in document["paths"].values() for operation in path.values())


def test_every_reference_in_the_document_leads_somewhere(document):
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', httpx.Response(200, json=document).text))
    assert names and names <= document["components"]["schemas"].keys()


def test_the_docs_list_every_path(document):
    text = (REPOSITORY / "docs" / "server.md").read_text(encoding="utf-8")
    missing = [
        path
        for path in document["paths"]
        if f"`{path.replace('{name}', '').replace('/models/', '/models')}`" not in text
    ]
    assert missing == []


def test_packaging_uses_options_that_there_are():
    from torchless.cli.verbs.serve import command

    known = {name for option in command.params for name in option.opts}
    for name in ("torchless.service", "Dockerfile"):
        text = (REPOSITORY / "packaging" / name).read_text(encoding="utf-8")
        lines = [
            line for line in text.splitlines() if re.search("TORCHLESS_SERVE=|ExecStart|ENTRYPOINT", line)
        ]
        used = {flag for line in lines for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
        assert len(used) > 1 and used <= known, name
    assert "USER torchless" in (REPOSITORY / "packaging" / "Dockerfile").read_text(encoding="utf-8")


def test_the_application_has_two_names():
    import torchless.serve
    import torchless.server

    assert torchless.serve.app is torchless.server.app
