"""A call of an API on its way: its body, the model it uses, and the answer it gets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from torchless.server.answers import Answers
from torchless.server.body import read_object
from torchless.server.errors import ApiError, explained
from torchless.server.pool import Lease, ModelPool
from torchless.server.settings import ServerSettings
from torchless.server.shapes import error_response, json_response
from torchless.server.sse import EventStream, disconnected

__all__ = ["Call", "Documented", "Handler", "Writer", "get", "post"]

_log = logging.getLogger("torchless.server")
_T = TypeVar("_T")


class Writer(Protocol):
    """Writes answers in the form of one API. Belongs to one call."""

    def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The answers as they come."""
        ...

    def whole(self, answers: Answers) -> Any:
        """The JSON value of answers that have ended."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """The last event of a stream that breaks off."""
        ...


@dataclass
class Call:
    """A call.

    Attributes:
        request: what came over HTTP.
        body: its JSON object; empty for methods without a body.
        log: further fields of the line in the log.
    """

    request: Request
    body: dict[str, Any]
    log: dict[str, Any]

    @property
    def pool(self) -> ModelPool:
        """The models."""
        pool: ModelPool = self.request.app.state.pool
        return pool

    @property
    def settings(self) -> ServerSettings:
        """How the server behaves."""
        return self.pool.settings

    async def lease(self, name: str | None, task: str = "auto") -> Lease:
        """A model to use; see `ModelPool.lease`."""
        if name is not None and not isinstance(name, str):
            raise ApiError(400, f"model: expected a name, got {type(name).__name__}", param="model")
        lease = await self.pool.lease(name or None, task)
        self.log["model"] = lease.name
        return lease

    async def while_connected(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of `work`, which is cancelled when the client goes away.

        Raises:
            ClientDisconnect: it did.
        """
        task = asyncio.create_task(work)
        watcher = asyncio.create_task(disconnected(self.request.receive))
        try:
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            raise ClientDisconnect
        return task.result()

    async def reply(
        self, lease: Lease, begun: Awaitable[Answers], writer: Writer, *, stream: bool, media: str = "sse"
    ) -> ASGIApp:
        """Answers in the form of an API: as a stream, or whole.

        Args:
            lease: released at the end.
            begun: makes the answers; its errors are those of the call.
            media: "sse", or "lines" of JSON.
        """
        try:
            answers = await begun
            if not stream:
                await self.while_connected(answers.whole())
                value = json_response(writer.whole(answers))
                self._count(answers)
                lease.release()
                return value
        except BaseException:
            lease.release()
            raise

        async def close() -> None:
            lease.release()
            self._count(answers)

        return EventStream(
            _until_failure(writer, answers),
            on_close=close,
            comment_seconds=self.settings.event_seconds if media == "sse" else None,
            media_type="text/event-stream" if media == "sse" else "application/x-ndjson",
        )

    def _count(self, answers: Answers) -> None:
        """Tells the log how much was computed, and what was said if that is wanted."""
        ended = [answer.completion for answer in answers.answers if answer.completion is not None]
        self.log["num_prompt_tokens"] = sum(item.usage.num_prompt_tokens for item in ended[:1])
        self.log["num_completion_tokens"] = sum(item.usage.num_completion_tokens for item in ended)
        if self.settings.log_prompts:
            self.log["body"] = self.body
            self.log["answers"] = [answer.text for answer in answers.answers]


async def _until_failure(writer: Writer, answers: Answers) -> AsyncGenerator[bytes, None]:
    """The events of a stream. An error becomes the last one, since the answer has begun."""
    try:
        async with contextlib.aclosing(writer.events(answers)) as events:
            async for item in events:
                yield item
    except Exception as error:
        yield writer.failure(explained(error) or _internal(error))


class Documented(Route):
    """A route that can be described.

    Attributes:
        summary: what it does.
        fields: of its body, None without one.
    """

    def __init__(
        self,
        path: str,
        endpoint: Any,
        *,
        methods: list[str],
        summary: str,
        fields: type[msgspec.Struct] | None,
    ) -> None:
        super().__init__(path, endpoint, methods=methods, name=path)
        self.summary = summary.partition("\n")[0]
        self.fields = fields


Handler = Callable[[Call], Awaitable[ASGIApp]]


def post(path: str, handler: Handler, fields: type[msgspec.Struct]) -> Route:
    """A route whose handler gets a JSON body, which has these fields (for the OpenAPI document)."""
    return _route(path, handler, "POST", fields)


def get(path: str, handler: Handler) -> Route:
    """A route without a body."""
    return _route(path, handler, "GET", None)


def _route(path: str, handler: Handler, method: str, fields: type[msgspec.Struct] | None) -> Route:
    async def endpoint(request: Request) -> Any:
        request.scope["torchless.route"] = path
        call = Call(request, {}, request.scope.setdefault("torchless.log", {}))
        try:
            if method == "POST":
                call.body = await read_object(request, request.app.state.pool.settings)
            return await handler(call)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; the log does
        except Exception as error:
            found = explained(error, call.body) or _internal(error)
            call.log["error"] = found.code or found.status
            return error_response(request.url.path, found)

    return Documented(path, endpoint, methods=[method], summary=handler.__doc__ or "", fields=fields)


def _internal(error: Exception) -> ApiError:
    """What a client is told about a fault of the server; the log has the rest."""
    _log.error("a call failed", exc_info=error)
    return ApiError(
        500, f"the server failed ({type(error).__name__}); its log says more", code="internal_error"
    )
