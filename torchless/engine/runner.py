"""Threads and event loops that share one engine: each asks for its own sequences, one driver thread steps for all."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

from torchless.engine.driver import CLOSED, Box, Driver, News, Reader, Ticket, drive
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.errors import TorchlessError
from torchless.results import Chunk, Completion

__all__ = ["Reader", "Runner"]

_T = TypeVar("_T")


class Runner:
    """Runs sequences to their end. Usable from any thread, not across a fork.

    The driver thread starts with the first request, sleeps while there is none, and ends with `close`, with the
    process, or once the runner is forgotten. Leaving `run`, `finish` or `complete` in any way (the end, an error,
    Ctrl-C, a closed iterator) frees the pages of their sequences and nothing else, within one step.
    """

    def __init__(self, engine: Engine) -> None:
        """Takes an engine over, which nobody else steps from now on."""
        self._driver = Driver(engine)
        self._threads: list[threading.Thread] = []  # none, then one
        self._starting = threading.Lock()
        self._pid = os.getpid()
        self._is_closed = False
        self._stop = weakref.finalize(
            self, _stop, self._driver.box, self._threads, engine.executor.set_interrupted, self._pid
        )

    @property
    def engine(self) -> Engine:
        """The engine; other threads only look at it, or use `call`."""
        return self._driver.engine

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def check_usable(self) -> None:
        """Raises TorchlessError after `close` and in a forked process."""
        if self._is_closed:
            raise TorchlessError(CLOSED)
        if os.getpid() != self._pid:
            raise TorchlessError(
                f"the model was loaded in process {self._pid}, and its threads do not live in this fork "
                f"of it; load the model after the fork, or start processes with the 'spawn' method"
            )

    def check_may_wait(self) -> None:
        """Raises TorchlessError in the driver's thread, which would wait for itself."""
        if threading.get_ident() == self._driver.thread:
            raise TorchlessError(
                "a callback of a request waits for another request, which its own thread would have to compute; "
                "use submit there, or wait in another thread"
            )

    # -- waiting for answers ----------------------------------------------------------------------

    def run(self, *readers: Reader) -> Generator[Chunk, None, None]:
        """Yields the pieces of answers as they come. The engine does not wait for who looks at them."""
        return self._chunks(readers, is_streamed=True)

    def finish(self, reader: Reader) -> Completion:
        """The whole answer."""
        return self.finish_all([reader])[0]

    def finish_all(self, readers: Iterable[Reader]) -> list[Completion]:
        """Several whole answers, by their chunks' index. An error of one ends them all."""
        chunks = sorted(self._chunks(readers, is_streamed=False), key=lambda chunk: chunk.index)
        return [chunk.completion for chunk in chunks if chunk.completion is not None]

    def _chunks(self, readers: Iterable[Reader], *, is_streamed: bool) -> Generator[Chunk, None, None]:
        self.check_may_wait()
        news: SimpleQueue[News] = SimpleQueue()
        tickets = [
            Ticket(reader.sequence, news.put, reader=reader, is_streamed=is_streamed) for reader in readers
        ]
        num_left = len(tickets)
        try:
            for ticket in tickets:
                self.submit(ticket)
            while num_left:
                chunk = _checked(news.get())
                assert chunk is not None
                num_left -= chunk.completion is not None
                yield chunk
        finally:
            for ticket in tickets:
                self.retire(ticket)

    def complete(self, sequences: list[Sequence]) -> None:
        """Returns when all these sequences have ended."""
        self.check_may_wait()
        news: SimpleQueue[News] = SimpleQueue()
        tickets = [Ticket(sequence, news.put) for sequence in sequences]
        try:
            for ticket in tickets:
                self.submit(ticket)
            for _ in tickets:
                _checked(news.get())
        finally:
            for ticket in tickets:
                self.retire(ticket)

    def call(self, action: Callable[[Engine], _T]) -> _T:
        """Runs `action` on the engine between two steps and returns what it returns."""
        if threading.get_ident() == self._driver.thread:
            return action(self._driver.engine)
        replies: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()

        def command(driver: Driver) -> None:
            try:
                replies.put((action(driver.engine), None))
            except BaseException as error:
                replies.put((None, error))

        self._put(command)
        value, error = replies.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    # -- without waiting --------------------------------------------------------------------------

    def submit(self, ticket: Ticket) -> None:
        """Starts a sequence; `Ticket.tell` hears of it."""
        self._put(lambda driver: driver.add(ticket))

    def retire(self, ticket: Ticket) -> None:
        """Ends a sequence that nobody reads any more and frees its pages, within one step.

        Waits for nothing, and can be called at any point of any thread: the garbage collector closes forgotten
        iterators. When nothing else is under way, the step that computes it is broken off.
        """
        if ticket.is_done or ticket.is_retired:
            return
        ticket.is_retired = True
        if self._threads and os.getpid() == self._pid:
            self._driver.box.put(lambda driver: driver.cancel(ticket))
            if all(other.is_retired for other in list(self._driver.tickets.values())):
                self.engine.executor.set_interrupted(True)

    def close(self) -> bool:
        """Ends everything; requests under way fail. True for the one call that did it."""
        if os.getpid() != self._pid:
            return False
        with self._starting:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return False
        self._stop()
        return True

    # -- the driver -------------------------------------------------------------------------------

    def _put(self, command: Callable[[Driver], object]) -> None:
        self.check_usable()
        with self._starting:
            self.check_usable()
            if not self._threads:
                thread = threading.Thread(
                    target=drive,
                    args=(self._driver.box, weakref.ref(self._driver)),
                    name="torchless-driver",
                    daemon=True,  # `_stop` ends it, also when the process ends
                )
                thread.start()
                self._threads.append(thread)
        self._driver.box.put(command)
        if self._driver.has_ended:  # closed meanwhile: nobody else looks into the box
            self._driver.refuse_rest()


def _checked(news: News) -> Chunk | None:
    if isinstance(news, BaseException):
        raise news
    return news


def _stop(
    box: Box, threads: list[threading.Thread], set_interrupted: Callable[[bool], None], pid: int
) -> None:
    """Ends the driver's thread and waits for it, unless it is the one that asks."""
    if os.getpid() != pid:
        return
    box.put(lambda driver: driver.end())
    set_interrupted(True)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()
