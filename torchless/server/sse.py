"""Answers that come piece by piece: server-sent events, or a line of JSON for each piece.

The HTML standard, section 9.2, defines the events.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

__all__ = ["DONE", "EventStream", "disconnected", "event", "line"]

DONE = b"data: [DONE]\n\n"
_COMMENT = b": still here\n\n"


def event(value: Any, name: str | None = None) -> bytes:
    """One event: a JSON value, and the event's name where the API has one."""
    data = b"data: " + msgspec.json.encode(value) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


def line(value: Any) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(value) + b"\n"


class EventStream:
    """An ASGI response that sends what a generator makes, and closes it once the client has gone.

    Args:
        pieces: bytes to send, as they come. Closed in any case, which ends the request that makes them.
        on_close: awaited at the end, in any case.
        comment_seconds: a comment is sent whenever there was nothing for so long; None for media that know none.
        media_type: of the answer.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        on_close: Callable[[], Awaitable[None]],
        comment_seconds: float | None = None,
        media_type: str = "text/event-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._pieces = pieces
        self._on_close = on_close
        self._comment_seconds = comment_seconds
        self._sent_at = time.monotonic()
        self.status_code = 200
        given = {"content-type": media_type, "cache-control": "no-store", "x-accel-buffering": "no"}
        self._headers = [
            (name.encode(), value.encode()) for name, value in {**given, **(headers or {})}.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(self._send_all(send)),
            asyncio.create_task(disconnected(receive)),
        ]
        if self._comment_seconds is not None:
            tasks.append(asyncio.create_task(self._send_comments(send, self._comment_seconds)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._pieces.aclose()
            finally:
                await self._on_close()
        if not tasks[0].cancelled():
            with contextlib.suppress(OSError):  # the client has gone
                tasks[0].result()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        async for piece in self._pieces:
            self._sent_at = time.monotonic()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_comments(self, send: Send, seconds: float) -> None:
        while True:
            await asyncio.sleep(max(0.01, self._sent_at + seconds - time.monotonic()))
            if time.monotonic() - self._sent_at >= seconds:
                self._sent_at = time.monotonic()
                with contextlib.suppress(RuntimeError):  # the answer has not begun, or has just ended
                    await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
