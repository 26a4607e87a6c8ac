"""What lies in pages and state slots of the C++ core, copied out and in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.quants import Bytes

__all__ = ["Contents"]


class Contents:
    """A part of `CpuExecutor`."""

    _core: Any
    _pages_used: npt.NDArray[np.bool_]
    _slots_used: npt.NDArray[np.bool_]

    @property
    def page_bytes(self) -> int:
        """See `backends.base.Executor`."""
        return 0 if self._core is None else int(self._core.page_bytes)

    def read_page(self, page: int) -> Bytes:
        """See `backends.base.Executor`."""
        content = np.empty(self.page_bytes, np.uint8)
        self._core.read_page(page, content)
        return content

    def write_page(self, page: int, content: Bytes) -> None:
        """See `backends.base.Executor`."""
        self._core.write_page(page, content)
        self._pages_used[page] = True

    def read_state(self, slot: int) -> Bytes:
        """See `backends.base.Executor`."""
        content = np.empty(int(self._core.slot_bytes), np.uint8)
        self._core.read_state(slot, content)
        return content

    def write_state(self, slot: int, content: Bytes, position: int) -> None:
        """See `backends.base.Executor`."""
        self._core.write_state(slot, content, position)
        self._slots_used[slot] = True
