"""Ctrl-C and SIGTERM that end the process at once, also while native code runs.

Python handles a signal on the main thread between two bytecodes. While that thread is inside the C++ core (a
prompt's chunk of a large model takes seconds) nothing would happen. A second thread therefore hears of the
signal too, through the wakeup descriptor that the C-level handler writes to, and ends the process when the
main thread has not done so within a moment.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

__all__ = ["SignalWatch"]

GRACE_SECONDS = 0.2
"""How long the main thread may take to end by itself, which is the cleaner way."""


class SignalWatch:
    """While open, SIGINT and SIGTERM end the process within `GRACE_SECONDS`.

    The main thread gets its exception (KeyboardInterrupt, `failures.Terminated`) as ever. If the block has
    not been left by then, `finish` is called on another thread and the process ends with 128 + the signal's
    number, without further ado. On other threads than the main one this does nothing.

    Args:
        finish: leaves terminal and output in order; must not wait for the main thread.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._left = threading.Event()  # set when the block is left
        self._is_suspended = False
        self._sender: socket.socket | None = None
        self._previous_descriptor = -1

    def __enter__(self) -> SignalWatch:
        if threading.current_thread() is threading.main_thread():
            receiver, self._sender = socket.socketpair()
            self._sender.setblocking(False)
            threading.Thread(target=self._watch, args=(receiver,), daemon=True).start()
            self._previous_descriptor = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._sender is not None:
            signal.set_wakeup_fd(self._previous_descriptor)
            self._sender.close()  # ends the watching thread

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, signals mean only what Python makes of them: a chat goes on after Ctrl-C."""
        self._is_suspended = True
        try:
            yield
        finally:
            self._is_suspended = False

    def _watch(self, receiver: socket.socket) -> None:
        with receiver:
            while numbers := receiver.recv(64):
                ending = [number for number in numbers if self._ends(number)]
                if ending and not self._left.wait(GRACE_SECONDS):
                    self._finish()
                    os._exit(128 + ending[0])

    def _ends(self, number: int) -> bool:
        """Whether this signal shall end the process now."""
        if number == signal.SIGINT and self._is_suspended:
            return False
        ignored = (signal.SIG_IGN, signal.SIG_DFL, None)
        return number in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) not in ignored
