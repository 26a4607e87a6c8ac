"""`torchless chat --url`: a server answers instead of a model of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "chat"))

from openai_server import OpenAIServer, events

pytest.importorskip("httpx", reason="httpx is not installed")


@pytest.fixture
def server():
    server = OpenAIServer()
    yield server
    server.close()


def test_answers_of_a_server_go_to_stdout(cli, server):
    server.answer = events({"reasoning_content": "Hm."}, {"content": "Hello"})
    status, out, err = cli("chat", "--url", server.url, "--temp", "0.5", stdin=b"first\nsecond\n")
    assert (status, out, err) == (0, "Hello\nHello\n", "")
    assert server.requests[0]["temperature"] == 0.5 and "top_k" not in server.requests[0]
    assert len(server.requests[1]["messages"]) == 3


def test_the_model_and_the_key(cli, server, monkeypatch):
    monkeypatch.setenv("TORCHLESS_API_KEY", "secret")
    assert cli("chat", "second-model", "--url", server.url, stdin=b"first\n")[0] == 0
    assert server.requests[0]["model"] == "second-model"
    assert server.headers["Authorization"] == "Bearer secret"
    status, _, err = cli("chat", "third-model", "--url", server.url)
    assert status == 1 and "has no model 'third-model', only first-model, second-model" in err


def test_refusals_end_with_a_status(cli, server):
    server.refusal = 500, b"broken"
    status, out, err = cli("chat", "--url", server.url, stdin=b"first\n")
    assert (status, out) == (1, "") and "refused with status 500: broken" in err


@pytest.mark.parametrize("options", [["--threads", "2"], ["--ctx", "9", "--lazy"], ["--draft-model", "x"]])
def test_options_of_loading_are_refused(cli, server, options):
    status, _, err = cli("chat", "--url", server.url, *options)
    assert status == 2 and options[0] in err and "has no meaning beside --url" in err


def test_an_address_that_is_none(cli):
    status, _, err = cli("chat", "--url", "nonsense")
    assert status == 1 and "--url takes an address such as http://localhost:8080, got 'nonsense'" in err
