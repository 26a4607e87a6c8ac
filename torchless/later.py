"""Methods of a model that do not wait: futures, coroutines and asynchronous iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from torchless import futures
from torchless.answers import Answers
from torchless.engine.runner import Runner
from torchless.futures import Future
from torchless.requests import Messages, Prompt, Request, Requests
from torchless.results import Chunk, Completion
from torchless.sampling.parameters import SamplingParams

__all__ = ["LaterMethods"]


class LaterMethods:
    """What `LLM` inherits. ``**options`` are those of `LLM.generate`, `LLM.chat` and `LLM.infill`.

    Arguments are checked at the call (of a coroutine: when it is awaited); errors are those of the method that waits.
    """

    defaults: SamplingParams
    _runner: Runner
    _requests: Requests

    def _answers(self, request: Request) -> Answers:
        return self._requests.answers(request, self.defaults)

    def _pieces(self, request: Request) -> AsyncGenerator[Chunk, None]:
        answers = self._answers(request)
        answers.check_can_stream()
        return futures.stream(self._runner, *answers.generations)

    # -- futures ----------------------------------------------------------------------------------

    def submit(self, prompt: Prompt | Request, **options: Any) -> Future:
        """Starts a request and returns at once.

        Example:
            futures = [model.submit(prompt, max_tokens=20) for prompt in prompts]
            for future in concurrent.futures.as_completed(futures):
                print(future.result().text)
        """
        return Future(self._runner, self._answers(Request.of(prompt, options)))

    # -- coroutines -------------------------------------------------------------------------------

    async def agenerate(self, prompt: Prompt | Request, **options: Any) -> Completion:
        """Like `generate`, for a coroutine. Cancelling the task ends the request within one step."""
        return await futures.finish(self._runner, self._answers(Request.of(prompt, options)))

    async def achat(self, messages: Messages, **options: Any) -> Completion:
        """Like `chat`, for a coroutine."""
        return await self.agenerate(Request(messages=messages, **options))

    async def ainfill(self, prefix: str, suffix: str, **options: Any) -> Completion:
        """Like `infill`, for a coroutine."""
        return await self.agenerate(Request(prefix=prefix, suffix=suffix, **options))

    # -- asynchronous iterators -------------------------------------------------------------------

    def astream(self, prompt: Prompt | Request, **options: Any) -> AsyncGenerator[Chunk, None]:
        """Like `stream`, for a coroutine: ``async for chunk in model.astream(...)``.

        Closing the iterator, or cancelling the task that waits for it, ends the request within one step.
        """
        return self._pieces(Request.of(prompt, options))

    async def aprepare(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Like `astream`, but the request is checked and encoded in another thread, so that the event loop goes on.

        Returns the iterator once nothing is wrong with the request; its work begins with the first piece.
        """
        return await asyncio.to_thread(self._pieces, request)

    def astream_chat(self, messages: Messages, **options: Any) -> AsyncGenerator[Chunk, None]:
        """Like `stream_chat`, for a coroutine."""
        return self.astream(Request(messages=messages, **options))

    def astream_infill(self, prefix: str, suffix: str, **options: Any) -> AsyncGenerator[Chunk, None]:
        """Like `stream_infill`, for a coroutine."""
        return self.astream(Request(prefix=prefix, suffix=suffix, **options))
