"""Answers that come later: a future for threads, and the same for coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any

from torchless.answers import Answers
from torchless.engine.driver import News, Reader, Ticket
from torchless.engine.runner import Runner
from torchless.results import Chunk, Completion

__all__ = ["Future", "finish", "stream"]


class Future(concurrent.futures.Future[Completion]):
    """An answer that is being written. Made by `LLM.submit`.

    All of `concurrent.futures.Future` works, `wait` and `as_completed` included. Beyond that: `cancel` also ends a
    request that is running, iterating gives the pieces of the answer as they come (again, for every iteration),
    and a coroutine can await it.

    Callbacks run in the thread that computes, which waits for them meanwhile: let them be short.

    Example:
        future = model.submit("Once upon a time", max_tokens=40)
        for chunk in future:
            print(chunk.text, end="")
        print(future.result().usage)
    """

    def __init__(self, runner: Runner, answers: Answers) -> None:
        """Submits a request."""
        super().__init__()
        self._runner = runner
        self._answers = answers
        self._completions: dict[int, Completion] = {}  # by the index of the answer (driver)
        self._cancelling = threading.RLock()
        self._chunks: list[Chunk] = []  # grows under `_news`
        # Not `_condition`: whoever waits there for the result takes any notice for the end.
        self._news = threading.Condition()
        self._tickets = [Ticket(reader.sequence, self._hear, reader=reader) for reader in answers.generations]
        for ticket in self._tickets:
            runner.submit(ticket)

    def cancel(self) -> bool:
        """Ends the request within one step and frees its memory. False if it had ended already."""
        with self._cancelling:
            if super().cancel() and not self._is_retired:
                self._retire()
                self.set_running_or_notify_cancel()  # wakes who waits for the result
                self._notify()
        return self.cancelled()

    def running(self) -> bool:
        """Whether its computation has begun and not ended."""
        has_begun = any(ticket.sequence.started_at is not None for ticket in self._tickets)
        return has_begun and not self.done()

    def result(self, timeout: float | None = None) -> Completion:
        """The whole answer.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it goes on.
            concurrent.futures.CancelledError: it was cancelled.
            TorchlessError: the model was closed meanwhile.
        """
        self._check_may_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that ended it, None if none did; raises as `result` does while there is neither."""
        self._check_may_wait()
        return super().exception(timeout)

    def __iter__(self) -> Iterator[Chunk]:
        """The pieces of the answer, from its beginning.

        Raises:
            InvalidRequestError: ``best_of`` drops some of the answers.
        """
        self._answers.check_can_stream()
        for ticket in self._tickets:
            ticket.is_streamed = True
        num_taken = 0
        while True:
            self._check_may_wait()
            with self._news:
                while len(self._chunks) == num_taken and not self.done():
                    self._news.wait()
                new = self._chunks[num_taken:]
            if not new:
                self.result()  # raises what ended it
                return
            num_taken += len(new)
            yield from new

    def __await__(self) -> Generator[Any, None, Completion]:
        """Waits in a coroutine; cancelling that cancels this."""
        return asyncio.wrap_future(self).__await__()

    def _check_may_wait(self) -> None:
        if not self.done():
            self._runner.check_may_wait()

    def _hear(self, news: News) -> None:
        try:
            if isinstance(news, BaseException):
                self.set_exception(news)
                self._retire()
                return
            assert news is not None
            with self._news:
                self._chunks.append(news)
            if news.completion is not None:
                self._completions[news.index] = news.completion
            if len(self._completions) == len(self._tickets):
                self.set_result(self._answers.join(self._completions[i] for i in range(len(self._tickets))))
        except concurrent.futures.InvalidStateError:
            pass  # cancelled meanwhile
        finally:
            self._notify()

    @property
    def _is_retired(self) -> bool:
        return all(ticket.is_retired for ticket in self._tickets)

    def _retire(self) -> None:
        """Ends whatever is still written."""
        for ticket in self._tickets:
            self._runner.retire(ticket)

    def _notify(self) -> None:
        """Wakes who waits for pieces or for the end of them."""
        with self._news:
            self._news.notify_all()


async def finish(runner: Runner, answers: Answers) -> Completion:
    """The whole answer. Cancelling the task ends the request within one step."""
    found: dict[int, Completion] = {}
    async for chunk in stream(runner, *answers.generations, is_streamed=False):
        if chunk.completion is not None:
            found[chunk.index] = chunk.completion
    return answers.join(found[i] for i in range(len(found)))


async def stream(runner: Runner, *readers: Reader, is_streamed: bool = True) -> AsyncGenerator[Chunk, None]:
    """The pieces of answers as they come. Closing the iterator ends the request within one step."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[News] = asyncio.Queue()

    def tell(news: News) -> None:
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, news)
        except RuntimeError:  # the loop was closed
            retire()

    def retire() -> None:
        for ticket in tickets:
            runner.retire(ticket)

    tickets = [Ticket(reader.sequence, tell, reader=reader, is_streamed=is_streamed) for reader in readers]
    num_left = len(tickets)
    try:
        for ticket in tickets:
            runner.submit(ticket)
        while num_left:
            news = await arrived.get()
            if isinstance(news, BaseException):
                raise news
            assert news is not None
            num_left -= news.completion is not None
            yield news
    finally:
        retire()
