"""Who may step the engine: one thread at a time, the others soon after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["Turns"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_STEP_ASIDE_S = 5e-5  # about what it takes to wake a thread
_NUM_TRIES = 20  # then a thread that waits is not on a processor, and waiting longer for it helps nobody


class Turns:
    """A lock that a thread in a loop cannot keep from the others.

    Python's locks do not queue: who releases one and asks again gets it before a waiting thread has woken
    up. Here a thread that comes back steps aside for a moment while others wait.

    The lock is taken by nothing but a ``with`` statement on a lock of the interpreter, which no signal can
    split, so that Ctrl-C at any moment leaves it free. Its owner may take it again: the garbage collector
    runs finalisers anywhere.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: set[int] = set()  # threads that wait (each its own)
        self._last = 0  # the thread that had the last turn (whoever has the turn)

    def take(self, action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Waits for the turn, then calls `action`."""
        thread = threading.get_ident()
        for _ in range(_NUM_TRIES):
            if not self._waiting or self._last != thread:
                break
            time.sleep(_STEP_ASIDE_S)
        try:
            self._waiting.add(thread)
            with self._lock:
                self._waiting.discard(thread)
                self._last = thread
                return action(*args, **kwargs)
        finally:
            self._waiting.discard(thread)  # interrupted while waiting
