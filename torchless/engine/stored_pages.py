"""Pages of one executor on their way to the disk and back."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from torchless.engine.page_store import PageStore

__all__ = ["PageMemory", "StoredPages"]

MOST_BYTES_AT_ONCE = 32 << 20
"""Read before a step in which others have work: so much takes a few hundredths of a second."""


class PageMemory(Protocol):
    """What is needed of an executor."""

    @property
    def page_bytes(self) -> int:
        """See `backends.base.Executor`."""
        ...

    def read_page(self, page: int) -> npt.NDArray[np.uint8]:
        """See `backends.base.Executor`."""
        ...

    def write_page(self, page: int, content: npt.NDArray[np.uint8]) -> None:
        """See `backends.base.Executor`."""
        ...


class StoredPages:
    """A store together with the memory that its pages come from and go to."""

    def __init__(self, store: PageStore, memory: PageMemory) -> None:
        self.store = store
        self._memory = memory
        self._num_bytes_left = 0

    def begin_step(self) -> None:
        """A step is put together: some more may be read."""
        self._num_bytes_left = MOST_BYTES_AT_ONCE

    @property
    def is_tired(self) -> bool:
        """Whether enough was read for this step."""
        return self._num_bytes_left <= 0

    def read(self, key: bytes) -> npt.NDArray[np.uint8] | None:
        """The content of a page; None where there is none that can be believed."""
        num_bytes = self._memory.page_bytes
        self._num_bytes_left -= num_bytes
        return self.store.read(key, num_bytes)

    def put(self, page: int, content: npt.NDArray[np.uint8]) -> None:
        """Fills a page."""
        self._memory.write_page(page, content)

    def save(self, page: int, keys: list[bytes], depth: int) -> None:
        """Hands a page over to be written, if it is not on disk, and notes that it was used.

        Args:
            keys: the chain keys of a sequence, of which this page is number `depth`.
        """
        parent = keys[depth - 1] if depth else None
        if self.store.wants(keys[depth], parent, self._memory.page_bytes):
            self.store.write(keys[depth], parent, depth, self._memory.read_page(page))
        else:
            self.store.touch(keys[depth])
