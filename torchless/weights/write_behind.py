"""Writes a file in a thread of its own, while what comes next is being made."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

import numpy as np

from torchless.quants import Bytes
from torchless.weights.mapped_file import is_mapped

__all__ = ["WriteBehind"]

_LEAST_BYTES = 1 << 18
"""Less is written at once: handing it to a thread would cost as much."""


class WriteBehind:
    """Appends to an open file; at most one chunk is still on its way. Leaving the context waits for it.

    An error of the file is raised by the call after the one that it belongs to, or on leaving.
    """

    __slots__ = ("_file", "_pending", "_pool")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1, "torchless-write")  # starts its thread when something is submitted
        self._pending: Future[int] | None = None

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def write(self, chunk: Bytes | bytes) -> None:
        """Writes bytes, or begins to: the chunk must not change any more."""
        self.wait()
        raw = chunk if isinstance(chunk, bytes) else np.ascontiguousarray(chunk).data
        # Whoever hands out pieces of a memory map lets their pages go as soon as the next piece is asked for.
        if isinstance(raw, bytes) or raw.nbytes < _LEAST_BYTES or is_mapped(chunk):
            self._file.write(raw)
        else:
            self._pending = self._pool.submit(self._file.write, raw)

    def wait(self) -> None:
        """Returns when everything so far is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
