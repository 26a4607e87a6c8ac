"""The thread that steps an engine for everybody, and what it does between two steps."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from torchless.backends.base import StepInterruptedError
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.errors import TorchlessError
from torchless.results import Chunk

__all__ = ["Box", "Driver", "Reader", "Ticket", "drive"]

_log = logging.getLogger("torchless")


class Reader(Protocol):
    """Whoever turns a sequence's tokens into pieces of an answer. Called by the driver."""

    @property
    def sequence(self) -> Sequence:
        """The sequence that is read."""
        ...

    @property
    def has_news(self) -> bool:
        """Whether `take` has something to return."""
        ...

    def take(self) -> Chunk | None:
        """What is new since the last call; the last chunk has a completion."""
        ...


News = Chunk | BaseException | None


class Ticket:
    """A sequence under way, and whom to tell about it.

    Attributes (who writes them):
        sequence, reader, tell: fixed. `tell` is called by the driver and must not wait: with chunks as they come if
            `is_streamed`, at the end with the last chunk (None without a reader), or with an error.
        is_streamed: pieces are wanted before the end (the reader's thread).
        is_retired: nobody listens any more (the reader's thread).
        is_done: the last thing was told (driver).
    """

    __slots__ = ("is_done", "is_retired", "is_streamed", "reader", "sequence", "tell")

    def __init__(
        self,
        sequence: Sequence,
        tell: Callable[[News], object],
        *,
        reader: Reader | None = None,
        is_streamed: bool = False,
    ) -> None:
        self.sequence = sequence
        self.reader = reader
        self.tell = tell
        self.is_streamed = is_streamed
        self.is_retired = False
        self.is_done = False


Box = SimpleQueue[Callable[["Driver"], object]]
"""What other threads want done between two steps. Putting something in is atomic: no signal, and no finaliser that
the garbage collector runs in the middle of it, can leave it half done."""


class Driver:
    """Steps an engine while there is work. Everything here is called by its thread alone, but for what says otherwise.

    Attributes:
        tickets: of all sequences that the engine has.
        has_ended: no command is obeyed any more; whoever put one into the box since then takes it out again.
        thread: identity of its thread, once it runs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.box: Box = SimpleQueue()
        self.tickets: dict[Sequence, Ticket] = {}
        self.has_ended = False
        self.thread: int | None = None
        self.running = threading.Lock()  # held by the one thread that drives

    # -- commands ---------------------------------------------------------------------------------

    def add(self, ticket: Ticket) -> None:
        """Takes a sequence in."""
        if ticket.is_retired:
            return
        try:
            self.engine.add(ticket.sequence)
        except Exception as error:
            self._tell(ticket, error)
            return
        self.tickets[ticket.sequence] = ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a sequence, if it has not ended, and frees its pages."""
        if self.tickets.pop(ticket.sequence, None) is not None:
            self.engine.cancel(ticket.sequence)

    def end(self, error: BaseException | None = None) -> None:
        """Fails whatever is under way and obeys nobody from now on."""
        self.has_ended = True  # first: whoever puts a command in after the last look sees it
        reason = error if error is not None else TorchlessError(CLOSED)
        for ticket in list(self.tickets.values()):
            self._tell(ticket, reason)
        self.tickets.clear()
        self.refuse_rest()

    def refuse_rest(self) -> None:
        """Fails what is left in the box of a driver that has ended. Any thread may call it."""
        refusing = _Refusing()
        while not self.box.empty():
            try:
                command = self.box.get_nowait()
            except Empty:  # another thread was faster
                return
            command(refusing)  # type: ignore[arg-type]

    # -- working ----------------------------------------------------------------------------------

    def work(self, command: Callable[[Driver], object]) -> None:
        """Obeys a command, then steps and obeys further ones until nothing is left to do."""
        command(self)
        while not self.has_ended:
            self.engine.executor.set_interrupted(False)
            while not self.has_ended and not self.box.empty():  # once it has ended, others empty the box too
                self.box.get_nowait()(self)
                self.engine.executor.set_interrupted(False)
            if self.has_ended or self.engine.scheduler.is_idle:
                return
            self._step()

    def _step(self) -> None:
        try:
            result = self.engine.step()
            assert result.runs, "a step without work while a sequence waits"
        except StepInterruptedError:
            self.engine.recover()  # the command that it was interrupted for is in the box
            return
        except BaseException as error:
            self._fail(set(self.engine.recover()), error)
            return
        for sequence in dict.fromkeys([*(run.sequence for run in result.runs), *result.finished]):
            ticket = self.tickets[sequence]
            if sequence.finish_reason is not None:
                del self.tickets[sequence]
                ticket.is_done = True
            elif not ticket.is_streamed:
                continue
            self._report(ticket)

    def _fail(self, concerned: set[Sequence], error: BaseException) -> None:
        """Ends the sequences that an error concerns; others may have ended in the step before it broke off."""
        for sequence, ticket in list(self.tickets.items()):
            if sequence in concerned:
                self.cancel(ticket)
                self._tell(ticket, error)
            elif sequence.finish_reason is not None:
                self.cancel(ticket)  # the engine has it no more, who observes it must hear so
                ticket.is_done = True
                self._report(ticket)

    def _report(self, ticket: Ticket) -> None:
        reader = ticket.reader
        if reader is None:
            self._tell(ticket, None)
        elif reader.has_news:
            try:
                news: News = reader.take()
            except Exception as error:
                self.cancel(ticket)
                news = error
            self._tell(ticket, news)

    @staticmethod
    def _tell(ticket: Ticket, news: News) -> None:
        if isinstance(news, BaseException):
            ticket.is_done = True
        if ticket.is_retired:
            return
        try:
            ticket.tell(news)
        except Exception:
            _log.exception("a callback of a request failed")


CLOSED = "the model is closed; load it again with torchless.load(...)"


class _Refusing:
    """Stands in for a driver that has ended: every command finds a closed model."""

    def add(self, ticket: Ticket) -> None:
        Driver._tell(ticket, TorchlessError(CLOSED))

    def cancel(self, ticket: Ticket) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass

    @property
    def engine(self) -> Engine:
        raise TorchlessError(CLOSED)


def drive(box: Box, reference: weakref.ref[Driver]) -> None:
    """What the thread does. While it waits for work it holds nothing of the model, which can be collected."""
    while True:
        command = box.get()
        driver = reference()
        if driver is None:
            return
        with driver.running:
            driver.thread = threading.get_ident()
            try:
                driver.work(command)
            except BaseException as error:
                _log.exception("the engine broke down")
                driver.end(error)
            if driver.has_ended:
                return
        del driver, command
