"""What pages and state slots hold, copied out and in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.backends.base import ExecutorOptions
from torchless.backends.reference.checks import check_page
from torchless.backends.reference.ops import Array
from torchless.backends.reference.page_content import packed_page, page_bytes, unpacked_page
from torchless.backends.reference.states import StateSlots
from torchless.plan import Plan

__all__ = ["Contents"]


class Contents:
    """A part of `ReferenceExecutor`."""

    plan: Plan
    options: ExecutorOptions
    pages: dict[tuple[int, int], tuple[Array, Array]]
    states: StateSlots

    @property
    def page_bytes(self) -> int:
        """See `backends.base.Executor`."""
        return page_bytes(self.plan)

    def read_page(self, page: int) -> npt.NDArray[np.uint8]:
        """See `backends.base.Executor`."""
        check_page(page, self.options.num_pages)
        return packed_page([self.pages[op.layer, page] for op in self.plan.cache_ops])

    def write_page(self, page: int, content: npt.NDArray[np.uint8]) -> None:
        """See `backends.base.Executor`."""
        check_page(page, self.options.num_pages, len(content), self.page_bytes)
        for op, pair in zip(self.plan.cache_ops, unpacked_page(content, self.plan), strict=True):
            self.pages[op.layer, page] = pair

    def read_state(self, slot: int) -> npt.NDArray[np.uint8]:
        """See `backends.base.Executor`."""
        return self.states.read(slot)

    def write_state(self, slot: int, content: npt.NDArray[np.uint8], position: int) -> None:
        """See `backends.base.Executor`."""
        self.states.write(slot, content, position)
