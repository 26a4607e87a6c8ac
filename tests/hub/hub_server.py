"""A small server that speaks the Hugging Face hub's protocol: listings, metadata, ranges, and broken connections."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "cafe"


class HubServer:
    """Serves repositories from memory on a free port of this machine.

    Attributes:
        repos: repository -> file -> content.
        break_after: path ending -> bytes after which the connection breaks, once.
        stall_after: path ending -> bytes after which nothing more comes, until the server closes.
        requests: "METHOD path [range]" in order.
        token: needed for every request if set.
        gated: repositories whose files need an agreement.
    """

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos = repos
        self.break_after: dict[str, int] = {}
        self.stall_after: dict[str, int] = {}
        self.requests: list[str] = []
        self.token: str | None = None
        self.gated: set[str] = set()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                hub.requests.append(
                    " ".join([self.command, unquote(parts.path), self.headers.get("Range", "")]).strip()
                )
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    return self.refuse(401, "RepoNotFound")
                steps = unquote(parts.path).strip("/").split("/")
                if steps[0] == "web":
                    return self.send_file(hub.repos["web"]["/".join(steps[1:])], steps[-1])
                if steps[:2] == ["api", "models"]:
                    return self.send_listing("/".join(steps[2:4]), steps[4:])
                repo, files = "/".join(steps[:2]), hub.repos.get("/".join(steps[:2]))
                if files is None:
                    return self.refuse(404, "RepoNotFound")
                if repo in hub.gated:
                    return self.refuse(403, "GatedRepo")
                name = "/".join(steps[4:])
                if steps[3] not in ("main", COMMIT):
                    return self.refuse(404, "RevisionNotFound")
                if name not in files:
                    return self.refuse(404, "EntryNotFound")
                return self.send_file(files[name], name)

            def send_listing(self, repo: str, rest: list[str]) -> None:
                files = hub.repos.get(repo)
                if files is None:
                    return self.refuse(404, "RepoNotFound")
                if repo in hub.gated:
                    return self.refuse(403, "GatedRepo")
                if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                    return self.refuse(404, "RevisionNotFound")
                entries = [
                    (name, len(data), hashlib.sha1(data).hexdigest()) for name, data in sorted(files.items())
                ]
                if rest[:1] == ["tree"]:
                    tree = [{"type": "file", "path": n, "size": s, "oid": o} for n, s, o in entries]
                    return self.send_json(tree)
                siblings = [{"rfilename": n, "size": s, "blobId": o} for n, s, o in entries]
                return self.send_json(
                    {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                )

            def send_json(self, content: object) -> None:
                self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

            def refuse(self, status: int, code: str) -> None:
                self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

            def send_file(self, data: bytes, name: str) -> None:
                tag = '"' + hashlib.sha1(data).hexdigest() + '"'
                headers = {"ETag": tag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
                start, wanted = 0, self.headers.get("Range")
                if wanted and self.headers.get("If-Range") in (None, tag):
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                stalls = [count for end, count in hub.stall_after.items() if name.endswith(end)]
                if stalls and self.command == "GET":
                    return self.stall(data[start:], stalls[0], headers)
                return self.answer(
                    206 if start else 200, data[start:], headers, hub.limit(name, self.command)
                )

            def stall(self, body: bytes, count: int, headers: dict[str, str]) -> None:
                self.send_response(200)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body[:count])
                self.wfile.flush()
                self.close_connection = True
                hub._ended.wait()

            def answer(
                self, status: int, body: bytes, headers: dict[str, str], limit: int | None = None
            ) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(body if limit is None else body[:limit])
                if limit is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)

        return Handler

    def limit(self, name: str, command: str) -> int | None:
        """Bytes after which this answer breaks off."""
        if command != "GET":
            return None
        return next((self.break_after.pop(end) for end in list(self.break_after) if name.endswith(end)), None)
