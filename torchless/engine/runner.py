"""Threads that share one engine: each waits for its own sequences, and whoever waits steps for all."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator
from typing import Protocol

from torchless.backends.base import Executor
from torchless.engine.engine import Engine
from torchless.engine.sequence import Sequence
from torchless.engine.speculation import Speculation
from torchless.engine.turns import Turns
from torchless.errors import TorchlessError
from torchless.results import Chunk

__all__ = ["Reader", "Runner"]


class Reader(Protocol):
    """Whoever turns a sequence's tokens into pieces of an answer. Called by the thread that has the turn."""

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


class Runner:
    """Runs sequences to their end. Usable from several threads, not across a fork.

    Leaving `run` or `complete` in any way (the end, an error, Ctrl-C, a closed iterator) frees the pages of
    their sequences and nothing else.
    """

    def __init__(self, executor: Executor, speculation: Speculation | None = None) -> None:
        self.engine = Engine(executor, speculation)
        self._turns = Turns()
        self._stepping_thread: int | None = None  # written by whoever has the turn
        self._retired: deque[Sequence] = deque()  # added by anybody, cancelled by whoever has the turn
        self._pid = os.getpid()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def check_usable(self) -> None:
        """Raises TorchlessError after `close` and in a forked process."""
        if self._is_closed:
            raise TorchlessError("the model is closed; load it again with torchless.load(...)")
        if os.getpid() != self._pid:
            raise TorchlessError(
                f"the model was loaded in process {self._pid}, and its threads do not live in this fork "
                f"of it; load the model after the fork, or start processes with the 'spawn' method"
            )

    def run(self, reader: Reader) -> Generator[Chunk, None, None]:
        """Yields the pieces of one answer as they come."""
        try:
            self._turns.take(self._add, [reader.sequence])
            while True:
                chunk = self._turns.take(self._advance, reader)
                if chunk is not None:
                    yield chunk
                    if chunk.completion is not None:
                        return
        finally:
            self._retire([reader.sequence])

    def complete(self, sequences: list[Sequence]) -> None:
        """Returns when all these sequences have ended."""
        try:
            self._turns.take(self._add, sequences)
            unfinished = sequences
            while unfinished := [sequence for sequence in unfinished if sequence.finish_reason is None]:
                self._turns.take(self._step_unless_finished, unfinished[0])
        finally:
            self._retire(sequences)

    def close(self) -> bool:
        """Ends everything; requests under way fail. True for the one call that did it."""
        if self._is_closed or os.getpid() != self._pid:
            return False
        return self._turns.take(self._close)

    # -- with the turn ----------------------------------------------------------------------------

    def _add(self, sequences: list[Sequence]) -> None:
        self.check_usable()
        for sequence in sequences:
            self.engine.add(sequence)

    def _advance(self, reader: Reader) -> Chunk | None:
        """What is new for this reader, after one step if nothing is."""
        if not reader.has_news:
            self._step()
        return reader.take()

    def _step_unless_finished(self, sequence: Sequence) -> None:
        if sequence.finish_reason is None:
            self._step()

    def _close(self) -> bool:
        was_closed, self._is_closed = self._is_closed, True
        return not was_closed

    def _step(self) -> None:
        """One step of everything that is under way."""
        self.check_usable()
        self._stepping_thread = threading.get_ident()
        try:
            result = self.engine.step()
        except BaseException:
            self.engine.recover()
            raise
        finally:
            self._stepping_thread = None
            self._cancel_retired()
        assert result.num_tokens, "a step without work while a sequence waits"

    def _retire(self, sequences: list[Sequence]) -> None:
        """Ends sequences that nobody reads any more and frees their pages.

        Can happen at any point of any thread: the garbage collector closes forgotten iterators. In the
        middle of this thread's own step they are only noted; the step cancels them when it is done.
        """
        self._retired.extend(sequence for sequence in sequences if sequence.state != "finished")
        if self._retired and os.getpid() == self._pid and self._stepping_thread != threading.get_ident():
            self._turns.take(self._cancel_retired)

    def _cancel_retired(self) -> None:
        while self._retired:
            try:
                if not self._is_closed:
                    self.engine.cancel(self._retired[0])
            except BaseException:
                self.engine.recover()
                raise
            self._retired.popleft()  # last: what an interrupt left undone is done again
