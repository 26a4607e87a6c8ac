"""The server's application within this process: requests of httpx go to it without a socket."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from typing import Any

import httpx

__all__ = ["InProcessTransport"]

_Message = dict[str, Any] | BaseException | None


class InProcessTransport(httpx.BaseTransport):
    """Hands requests to an ASGI application, whose event loop runs in a thread of its own.

    Answers stream: a piece is there as soon as the application sends it. Closing an answer that has not ended is
    what hanging up is to a server.

    Args:
        application: an ASGI application; its lifespan is this transport's.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="torchless-in-process", daemon=True
        )
        self._thread.start()
        self._ending = asyncio.Event()
        self._lifespan = asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        self._is_closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport`."""
        body = request.read()
        exchange = _Exchange(self._loop, body)
        asyncio.run_coroutine_threadsafe(exchange.run(self._application, _scope(request)), self._loop)
        start = exchange.take()
        if isinstance(start, BaseException):
            raise start
        assert start is not None and start["type"] == "http.response.start"
        return httpx.Response(start["status"], headers=start["headers"], stream=exchange)

    def close(self) -> None:
        """Ends the application: models that it loaded are closed. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._ending.set)
        self._lifespan.result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _live(self) -> None:
        """The application's lifespan."""
        has_started = False

        async def receive() -> dict[str, Any]:
            nonlocal has_started
            if has_started:
                await self._ending.wait()
                return {"type": "lifespan.shutdown"}
            has_started = True
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self._application(scope, receive, send)


class _Exchange(httpx.SyncByteStream):
    """A request on its way, and its answer as it comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        self._loop, self._body = loop, body
        self._arrived: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._hung_up = asyncio.Event()
        self._is_read = False

    async def run(self, application: Any, scope: dict[str, Any]) -> None:
        """Calls the application, and says when it has ended."""
        try:
            await application(scope, self._receive, self._send)
            self._arrived.put(None)
        except BaseException as error:
            self._arrived.put(error)
            if not isinstance(error, Exception):
                raise

    def take(self) -> _Message:
        """The next message of the application."""
        return self._arrived.get()

    async def _receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self._arrived.put(message)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            message = self.take()
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    def close(self) -> None:
        """Hangs up."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hung_up.set)


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("in-process", 0),
        "server": (url.host, url.port or 80),
    }
