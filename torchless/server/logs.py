"""The log: a line for each call, as text or JSON. Without prompts and answers, unless they are asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchless.server.http_metrics import HttpMetrics

__all__ = ["AccessLog", "log_to"]

_log = logging.getLogger("torchless.server")
# What a record has by itself; everything else was given by `extra`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class AccessLog:
    """ASGI middleware that writes a line for each call when it has ended, and counts it."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        fields: dict[str, Any] = scope.setdefault("torchless.log", {})
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.num_open += 1
        try:
            await self._app(scope, receive, watch)
        finally:
            self._metrics.num_open -= 1
            route = scope.get("torchless.route", "other")
            self._metrics.add(route, status, time.perf_counter() - began_at)
            client = scope.get("client")
            called = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round((time.perf_counter() - began_at) * 1e3, 1),
                "client": client[0] if client else "",
            }
            _log.info("call", extra={**called, **fields})


class _JsonLines(logging.Formatter):
    """One JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        value = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            value["trace"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=True, default=str)


class _TextLines(logging.Formatter):
    """Words and ``name=value`` pairs, one line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{name}={json.dumps(value, default=str)}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.getMessage()} {pairs}".rstrip()
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def log_to(stream: TextIO | None = None, *, as_json: bool = False) -> logging.Logger:
    """Writes the server's log to a stream (None: stderr) from now on, and to nothing else; returns it."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonLines() if as_json else _TextLines())
    _log.handlers[:] = [handler]
    _log.setLevel(logging.INFO)
    _log.propagate = False
    return _log


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}
