"""Page ids of the KV cache: who may write where. Bookkeeping only; the memory is the executor's."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["PageAllocator"]


class PageAllocator:
    """Hands out the page ids ``0 .. num_pages - 1``, each to one owner at a time.

    The page that was freed last is handed out first: its memory is the most likely to be committed
    and in the processor's cache.

    Example:
        >>> pages = PageAllocator(4)
        >>> pages.alloc(2)
        [0, 1]
        >>> pages.free([0, 1])
        >>> pages.num_free
        4
    """

    def __init__(self, num_pages: int) -> None:
        if num_pages < 1:
            raise ValueError(f"a KV cache needs at least one page, got {num_pages}")
        self.num_pages = num_pages
        self._in_use = bytearray(num_pages)  # 1 where a page has an owner
        self._free: list[int] = []  # a stack; every id that is not in use, once
        self.rebuild(())

    @property
    def num_free(self) -> int:
        """Pages that can be allocated now."""
        return len(self._free)

    @property
    def free_ids(self) -> list[int]:
        """The pages that can be allocated now."""
        return list(self._free)

    def alloc(self, count: int) -> list[int]:
        """Takes `count` pages.

        Raises:
            ValueError: fewer than `count` pages are free (see `num_free`); nothing was taken.
        """
        if not 0 <= count <= len(self._free):
            raise ValueError(f"{count} pages were asked for and {len(self._free)} are free")
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._in_use[page] = 1
        return taken

    def free(self, page_ids: Iterable[int]) -> None:
        """Gives pages back.

        Raises:
            ValueError: a page has no owner or does not exist: two owners would share it later.
        """
        for page in page_ids:
            if not 0 <= page < self.num_pages or not self._in_use[page]:
                raise ValueError(f"page {page} is not in use")
            self._in_use[page] = 0
            self._free.append(page)

    def rebuild(self, in_use: Iterable[int]) -> None:
        """Forgets everything but the pages in `in_use`: the way back after an interrupted step."""
        self._in_use = bytearray(self.num_pages)
        for page in in_use:
            self._in_use[page] = 1
        self._free = [page for page in range(self.num_pages - 1, -1, -1) if not self._in_use[page]]
