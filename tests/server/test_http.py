"""The server as HTTP sees it: health, metrics, keys, origins, limits, errors, and clients that go away."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import httpx
import pytest
from servers import is_at_rest, paused, running

from torchless.server.impatience import ImpatientProtocol
from torchless.server.settings import ServerSettings

CHAT = {"messages": [{"role": "user", "content": "Tell me a story about a fox."}]}
LONG = {**CHAT, "max_tokens": 400, "ignore_eos": True}


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


def wait_for_rest(llm):
    """Seconds until the model has nothing left to do."""
    began_at = time.monotonic()
    while not is_at_rest(llm):
        assert time.monotonic() - began_at < 20
        time.sleep(0.002)
    return time.monotonic() - began_at


def test_health_tells_what_is_loaded(http):
    assert http.get("/health").json() == {"status": "ok", "models": ["stories"], "loaded": ["stories"]}


def test_metrics_are_read_by_prometheus_own_parser(http):
    parser = pytest.importorskip("prometheus_client.parser")
    http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2})
    http.get("/no/such/path")
    text = http.get("/metrics").text
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert {sample.labels["model"] for sample in families["torchless_requests"].samples} == {"stories"}
    calls = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for sample in families["torchless_http_requests"].samples
    }
    assert calls["/v1/chat/completions", "200"] >= 1 and calls["other", "404"] >= 1


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", "invalid_json"), (b"[]", "invalid_json"), (b"", "invalid_json"), (b"{}", "missing_field")],
)
def test_a_body_that_is_none_is_refused(http, body, code):
    answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code


def test_paths_and_methods_that_are_not_there(http):
    assert http.get("/v1/nothing").status_code == 404
    answer = http.get("/v1/chat/completions")
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]
    assert "message" in answer.json()["error"]


def test_a_client_that_leaves_a_stream_frees_its_request(http, stories):
    with http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert len([next(lines) for _ in range(4)]) == 4
        assert not is_at_rest(stories)
    assert wait_for_rest(stories) < 5
    assert stories.metrics().num_cancelled >= 1


def test_a_client_that_does_not_wait_for_an_answer_frees_its_request(server, stories):
    before = stories.metrics().num_generated_tokens
    pool = server.application.state.pool
    with paused(stories):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json=LONG, timeout=httpx.Timeout(5, read=0.3))
        for _ in range(1000):
            if not pool.describe("stories")["num_requests"]:
                break
            time.sleep(0.01)
        assert pool.describe("stories")["num_requests"] == 0
    wait_for_rest(stories)
    assert stories.metrics().num_generated_tokens == before


def test_a_key_is_asked_for(stories):
    with (
        running(stories, ServerSettings(api_keys=("right", "other"))) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        assert http.get("/health").status_code == 200
        answer = http.get("/v1/models")
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "missing_api_key"
        for key in ("right", "other"):
            assert http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert http.get("/v1/models", headers={"x-api-key": "right"}).status_code == 200
        for key in ("wrong", "righ", "right2", "\u00e9".encode()):
            headers = {"Authorization": b"Bearer " + (key if isinstance(key, bytes) else key.encode())}
            answer = http.get("/v1/models", headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"


def test_web_pages_of_other_origins_may_not_ask(http, server):
    assert http.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
    assert http.get("/v1/models", headers={"Origin": "null"}).status_code == 403
    assert http.get("/v1/models", headers={"Origin": server.url}).status_code == 200
    assert "access-control-allow-origin" not in http.get("/health").headers


def test_web_pages_of_allowed_origins_may(stories):
    settings = ServerSettings(allowed_origins=("https://good.example",))
    with running(stories, settings) as server:
        headers = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{server.url}/v1/chat/completions", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        headers = {"Origin": "https://evil.example"}
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 403


def test_a_server_for_this_machine_does_not_answer_to_other_names(stories):
    with running(stories, ServerSettings(local_only=True)) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
        answer = httpx.get(f"{server.url}/v1/models", headers={"Host": "rebound.example"})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "host_not_allowed"


def test_bodies_have_a_largest_size(stories):
    with running(stories, ServerSettings(max_body_bytes=1000)) as server:
        url = f"{server.url}/v1/completions"
        assert httpx.post(url, json={"prompt": "a", "max_tokens": 1}).status_code == 200
        assert httpx.post(url, json={"prompt": "a" * 1000}).status_code == 413

        def pieces():
            for _ in range(10):
                yield b"x" * 200

        answer = httpx.post(url, content=pieces())  # chunked: its size is not declared
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"


def test_a_body_that_does_not_arrive_is_given_up(stories):
    with running(stories, ServerSettings(body_timeout_seconds=0.2)) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n"
            connection.sendall(head.encode() + b'{"pro')
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")


class Hasty(ImpatientProtocol):
    """Waits a moment alone."""

    patience_seconds = 0.3


def read_to_end(connection):
    """All bytes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4096):
            found += piece
    return found


def test_connections_that_send_no_whole_head_are_closed(stories):
    with running(stories, http=Hasty) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        for head in (b"", b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow"):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(head)
                assert read_to_end(connection) == b""
        request = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request + request[:10])  # a whole one, and the beginning of another
            answers = read_to_end(connection)
            assert answers.startswith(b"HTTP/1.1 200") and answers.count(b"HTTP/1.1") == 1
        with paused(stories):  # a request under way may take its time
            body = json.dumps({**CHAT, "max_tokens": 1}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
            connection = socket.create_connection((host, int(port)), timeout=30)
            connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
            time.sleep(0.8)
        with connection:
            assert read_to_end(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "header", [b"X-Long: " + b"a" * 200_000, b"\x00: a", b"Content-Length: -5", b"Transfer-Encoding: x"]
)
def test_heads_that_are_abused_are_refused(server, header):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection, contextlib.suppress(OSError):
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        assert b" 500 " not in read_to_end(connection)[:20]
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_no_path_leads_out_of_the_server(http):
    for path in (
        "/../etc/passwd",
        "/ui/../../pyproject.toml",
        "/v1/models/../../health",
        "/ui/%2e%2e/%2e%2e/README.md",
    ):
        raw = httpx.Request("GET", http.base_url.join("/"), extensions={"target": path.encode()})
        answer = http.send(raw)
        assert answer.status_code in (400, 404) and b"[project]" not in answer.content


def test_too_many_requests_are_told_to_come_again(stories):
    with (
        running(stories, ServerSettings(max_requests=1)) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        body = {**CHAT, "stream": True, "max_tokens": 1}
        with paused(stories), http.stream("POST", "/v1/chat/completions", json=body) as first:
            lines = first.iter_lines()
            assert next(lines).startswith("data: ")
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
            assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert httpx.get(f"{server.url}/health").status_code == 200
        for _ in range(500):
            answer = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1})
            if answer.status_code == 200:
                return
            time.sleep(0.02)
        raise AssertionError("the place of a request that has ended was not given back")


def test_a_stream_that_waits_sends_comments(stories):
    lines = []
    with running(stories, ServerSettings(event_seconds=0.02)) as server, contextlib.ExitStack() as pause:
        pause.enter_context(paused(stories))
        body = {**CHAT, "stream": True, "max_tokens": 5, "temperature": 0}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if line.startswith(":"):
                    pause.close()
    assert any(line.startswith(":") for line in lines)
    events = [line.removeprefix("data: ") for line in lines if line and not line.startswith(":")]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(item)["choices"][0]["delta"].get("content", "") for item in events[:-1])
    assert text == stories.chat(CHAT["messages"], max_tokens=5, temperature=0).text
