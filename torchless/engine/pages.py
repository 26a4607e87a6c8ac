"""Page ids of the KV cache: who may write where. Bookkeeping only; the memory is the executor's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["PageAllocator"]


class PageAllocator:
    """Hands out the page ids ``0 .. num_pages - 1`` and counts the owners of each.

    A page is one of three: *owned*, by one or by several who all only read it; *kept*, without an owner, because what
    it holds may be wanted again (`keep`); or *empty*. Whoever allocates gets empty pages first, the one that was freed
    last before others: its memory is the most likely to be committed and in the processor's cache. Then come kept
    pages, the one that lost its last owner first before others.

    Attributes:
        on_evict: told of each kept page that is about to be handed out as an empty one.

    Example:
        >>> pages = PageAllocator(4)
        >>> pages.alloc(2)
        [0, 1]
        >>> pages.keep(1)
        >>> pages.free([0, 1])
        [0]
        >>> pages.num_free, pages.num_kept
        (4, 1)
    """

    def __init__(self, num_pages: int, on_evict: Callable[[int], None] | None = None) -> None:
        if num_pages < 1:
            raise ValueError(f"a KV cache needs at least one page, got {num_pages}")
        self.num_pages = num_pages
        self.on_evict = on_evict
        self._num_owners = [0] * num_pages
        self._is_kept = bytearray(num_pages)  # 1 where the page stays when its last owner leaves
        self._kept: dict[int, None] = {}  # those without an owner, the one that is given up first in front
        self._empty: list[int] = []  # a stack
        self.rebuild(())

    @property
    def num_free(self) -> int:
        """Pages that can be allocated now, kept ones among them."""
        return len(self._empty) + len(self._kept)

    @property
    def num_kept(self) -> int:
        """Pages without an owner that still hold something."""
        return len(self._kept)

    @property
    def empty_ids(self) -> list[int]:
        """The pages that nobody owns and that hold nothing."""
        return list(self._empty)

    def num_owners(self, page: int) -> int:
        """How many own a page."""
        return self._num_owners[page]

    def alloc(self, count: int) -> list[int]:
        """Takes `count` pages.

        Raises:
            ValueError: fewer than `count` pages are free (see `num_free`); nothing was taken.
        """
        if not 0 <= count <= self.num_free:
            raise ValueError(f"{count} pages were asked for and {self.num_free} are free")
        while len(self._empty) < count:
            self._evict(next(iter(self._kept)))
        taken = [self._empty.pop() for _ in range(count)]
        for page in taken:
            self._num_owners[page] = 1
        return taken

    def share(self, page: int) -> None:
        """Adds an owner to a page that is owned or kept.

        Raises:
            ValueError: it is empty, or does not exist.
        """
        self._check(page)
        if not self._num_owners[page]:
            if page not in self._kept:
                raise ValueError(f"page {page} is not in use")
            del self._kept[page]
        self._num_owners[page] += 1

    def keep(self, page: int) -> None:
        """Lets an owned page stay when its last owner leaves, until its memory is needed.

        Raises:
            ValueError: nobody owns it.
        """
        self._check(page)
        if not self._num_owners[page]:
            raise ValueError(f"page {page} is not in use")
        self._is_kept[page] = 1

    def free(self, page_ids: Iterable[int]) -> list[int]:
        """Takes one owner from each of these pages; returns those that are empty now.

        Raises:
            ValueError: a page has no owner or does not exist: two owners who write would share it later.
        """
        emptied = []
        for page in page_ids:
            self._check(page)
            if not self._num_owners[page]:
                raise ValueError(f"page {page} is not in use")
            self._num_owners[page] -= 1
            if self._num_owners[page]:
                continue
            if self._is_kept[page]:
                self._kept[page] = None
            else:
                self._empty.append(page)
                emptied.append(page)
        return emptied

    def rebuild(self, owned: Iterable[int], kept: Iterable[int] = ()) -> None:
        """Forgets everything but this: the way back after an interrupted step.

        Args:
            owned: each page as often as it has owners.
            kept: the pages that stay without one. Those that had none before keep their order, others come behind
                them in the order given here.
        """
        before = self._kept
        self._num_owners = [0] * self.num_pages
        for page in owned:
            self._num_owners[page] += 1
        self._is_kept = bytearray(self.num_pages)
        kept = list(kept)
        for page in kept:
            self._is_kept[page] = 1
        order = [page for page in before if self._is_kept[page]] + [p for p in kept if p not in before]
        self._kept = {page: None for page in order if not self._num_owners[page]}
        self._empty = [
            page
            for page in range(self.num_pages - 1, -1, -1)
            if not self._num_owners[page] and not self._is_kept[page]
        ]

    def _evict(self, page: int) -> None:
        if self.on_evict is not None:
            self.on_evict(page)
        del self._kept[page]
        self._is_kept[page] = 0
        self._empty.append(page)

    def _check(self, page: int) -> None:
        if not 0 <= page < self.num_pages:
            raise ValueError(f"page {page} is not in use: there are {self.num_pages}")
