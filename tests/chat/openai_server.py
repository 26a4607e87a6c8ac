"""A server that speaks OpenAI's protocol and answers what it was told to, on a free port of this machine."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def events(
    *deltas: dict[str, Any], finish_reason: str = "stop", usage: dict[str, Any] | None = None
) -> list[Any]:
    """The chunks of a streamed answer."""
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    if usage is not None:
        chunks.append({"choices": [], "usage": usage})
    return chunks


class OpenAIServer:
    """Serves until closed.

    Attributes:
        models: entries of ``/v1/models``.
        answer: chunks of the next answers; a float among them waits so many seconds, bytes are sent as they are.
        refusal: (status, body) for all questions, or None.
        requests: bodies of the questions.
        headers: of the last request.
        num_broken_off: connections that the client gave up.
    """

    def __init__(self) -> None:
        self.models: Any = {"data": [{"id": "first-model", "context_length": 64}, {"id": "second-model"}]}
        self.answer: list[Any] = events({"content": "Hello"})
        self.content_type = "text/event-stream"
        self.refusal: tuple[int, bytes] | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.num_broken_off = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                server.headers = dict(self.headers)
                self._whole(200, json.dumps(server.models).encode())

            def do_POST(self) -> None:
                server.headers = dict(self.headers)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append(json.loads(body))
                if server.refusal is not None:
                    self._whole(*server.refusal)
                    return
                self.send_response(200)
                self.send_header("Content-Type", server.content_type)
                self.end_headers()
                try:
                    for chunk in server.answer:
                        self._send(chunk)
                    self._send(b"data: [DONE]\n\n")
                except OSError:
                    server.num_broken_off += 1

            def _send(self, chunk: Any) -> None:
                if isinstance(chunk, float):
                    time.sleep(chunk)
                else:
                    raw = chunk if isinstance(chunk, bytes) else b"data: %s\n\n" % json.dumps(chunk).encode()
                    self.wfile.write(raw)
                    self.wfile.flush()

            def _whole(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if 300 <= status < 400:
                    self.send_header("Location", "https://elsewhere.example/v1")
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it. Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
