"""``torchless serve`` as a process: where it listens, how it ends, what it refuses, and what its log says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CHAT = {"messages": [{"role": "user", "content": "Tell me a story about a zebra."}], "temperature": 0}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "torchless", "serve", "--threads", "1", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLESS_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **changes}


class Process:
    """A server that runs: where it listens, and its log so far."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        for _ in range(1200):
            found = re.search(r'url"?[=:]\s?"([^"]+)"', self.log)
            if found:
                return found[1]
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        raise AssertionError(f"it does not listen: {self.log}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(tmp_path: Path, *arguments: object, **changes: str) -> Iterator[Process]:
    log = tmp_path / "log.txt"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command(*arguments),
            stderr=stream,
            stdout=subprocess.DEVNULL,
            env=environment(**changes),
            text=True,
        )
    try:
        yield Process(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def refused(*arguments: object, **changes: str) -> tuple[int, str]:
    """Exit status and message of a server that does not start."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, env=environment(**changes)
    )
    return done.returncode, done.stderr


def test_it_answers_and_ends_with_the_requests_under_way(tmp_path):
    with serving(tmp_path, "--port", 0) as server:
        assert httpx.get(f"{server.url}/health").json()["loaded"] == ["stories"]
        body = {**CHAT, "stream": True, "max_tokens": 300, "ignore_eos": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            lines = (line for line in answer.iter_lines() if line)
            first = next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [first, *lines]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert server.process.wait(30) == 0
        assert "zebra" not in server.log and "ended" in server.log.splitlines()[-1]


def test_ctrl_c_ends_it_and_what_takes_too_long_is_broken_off(tmp_path):
    with serving(tmp_path, "--port", 0, "--drain", "1s", "-c", 512) as server:
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
        with socket.create_connection((host, port)) as slow:  # sends half of a request and waits
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
            time.sleep(0.2)
            began_at = time.monotonic()
            assert server.end(signal.SIGINT) == 0
            assert time.monotonic() - began_at < 15


def test_the_log_is_json_without_prompts_or_with_them(tmp_path):
    with serving(tmp_path, "--port", 0, "--log-json") as server:
        httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "max_tokens": 3})
        httpx.post(f"{server.url}/v1/chat/completions", json={})
        assert server.end() == 0
        records = [json.loads(line) for line in server.log.splitlines()]
    calls = [record for record in records if record["event"] == "call"]
    assert [call["status"] for call in calls] == [200, 400]
    assert (calls[0]["model"], calls[0]["num_completion_tokens"]) == ("stories", 3)
    assert calls[1]["error"] == "missing_field" and "zebra" not in server.log
    with serving(tmp_path, "--port", 0, "--log-json", "--log-prompts") as server:
        httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "max_tokens": 3})
        assert server.end() == 0
        assert "zebra" in server.log


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path):
    path = tmp_path / "torchless.sock"
    with socket.socket(socket.AF_UNIX) as left:  # by a server that was killed
        left.bind(str(path))
    with serving(tmp_path, "--socket", path) as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://anything") as http:
            answer = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 3})
            assert answer.json()["usage"]["completion_tokens"] == 3
        status, message = refused("--socket", path)
        assert status == 1 and "another server listens there" in message
        assert server.end() == 0
    assert not path.exists()
    path.write_text("mine")
    status, message = refused("--socket", path)
    assert status == 1 and "no socket" in message and path.read_text() == "mine"


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed"
)
def test_tls(tmp_path):
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *files]
    subprocess.run(list(map(str, make)), check=True, capture_output=True)
    options = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    with serving(tmp_path, "--port", 0, *options) as server:
        assert server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(f"{server.url}/health", verify=trusted).status_code == 200
        assert server.end() == 0


def test_nobody_else_is_let_in_without_a_key(tmp_path):
    status, message = refused("--host", "0.0.0.0", "--port", 0)
    assert status == 2 and "lets other machines in" in message and "--insecure" in message
    keys = tmp_path / "keys"
    keys.write_text("first\n\nsecond\n")
    with serving(
        tmp_path, "--host", "0.0.0.0", "--port", 0, "--api-key-file", keys, TORCHLESS_API_KEY="third"
    ) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/models").status_code == 401
        for key in ("first", "second", "third"):
            assert (
                httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
            )
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Basic first"}).status_code == 401
        assert server.end() == 0


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, message = refused("--port", port)
    assert status == 1 and f"127.0.0.1:{port}: cannot listen there" in message


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["no-such-model.gguf", "--port", 0], 1, "no-such-model.gguf"),
        (["--tls-key", "k.pem"], 2, "its certificate is missing"),
        (["--tls-cert", "c.pem"], 2, "no such file"),
        (["--keep-alive", "soon"], 2, "expected a time such as"),
        (["--max-body", "much"], 1, "much"),
        (["a=x.gguf", "a=y.gguf", "--on-demand"], 1, "two models are called 'a'"),
    ],
)
def test_wrong_options_are_refused_by_name(arguments, status, sentence):
    found, message = refused(*arguments)
    assert found == status and sentence in message
