"""The prefix cache on disk: pages by chain key, read and checked when they are wanted, written by a thread of its own.

Nothing here is needed for an answer: what cannot be read, or is not what it should be, is computed, and what cannot be
written is not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.engine.page_file import DamagedPageError, read_page, write_page
from torchless.engine.page_folder import PageFolder

__all__ = ["MAX_QUEUED_BYTES", "PageStore"]

_log = logging.getLogger("torchless")

MAX_QUEUED_BYTES = 256 << 20
"""Pages that wait to be written take no more memory than this; others are left out."""

_TOUCH_SECONDS = 60.0  # a page's time of use is no more exact than this

Bytes = npt.NDArray[np.uint8]


class _Page(NamedTuple):
    """A page that is to be written, or, without a payload, one that was used."""

    key: bytes
    parent: bytes | None
    depth: int
    payload: Bytes | None


class PageStore:
    """The pages of one model, among those of others in one folder. One thread reads; any may close.

    Args:
        folder: where they lie.
        fingerprint: of everything beside the tokens that decides what a page holds; chain keys begin with it.

    Attributes:
        num_written_pages, num_read_pages, num_damaged_pages: so far; damaged ones were removed.
    """

    def __init__(self, folder: PageFolder, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.num_written_pages = self.num_read_pages = self.num_damaged_pages = 0
        self._folder = folder
        self._used_at: dict[
            bytes, float
        ] = {}  # pages that are on disk or on their way, and when that was last noted
        self._queue: SimpleQueue[_Page | None] = SimpleQueue()
        self._num_queued_bytes = 0
        self._counting = threading.Lock()
        self._is_writable = True
        self._writer = threading.Thread(
            target=_write_all, args=(weakref.ref(self), self._queue), name="torchless-pages", daemon=True
        )
        self._writer.start()
        self._stop = weakref.finalize(self, _end, self._queue, self._writer)  # also when the process ends

    @property
    def folder(self) -> Path:
        """Where the pages lie."""
        return self._folder.folder

    def read(self, key: bytes, num_bytes: int) -> Bytes | None:
        """The content of a page, a read-only view; None where there is none that can be believed."""
        path = self._folder.path_of(key)
        try:
            payload = read_page(path, key, num_bytes)
        except FileNotFoundError:
            self._used_at.pop(key, None)
            return None
        except DamagedPageError as error:
            _log.info("the prefix cache's page %s is damaged and will be computed again: %s", path, error)
            self.num_damaged_pages += 1
            self._used_at.pop(key, None)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            _log.info("the prefix cache's page %s cannot be read: %s", path, error)
            return None
        self.num_read_pages += 1
        self._used_at.setdefault(key, 0.0)
        return payload

    def wants(self, key: bytes, parent: bytes | None, num_bytes: int) -> bool:
        """Whether a page shall be handed to `write`: it is not there, what it rests on is, and there is room."""
        return (
            key not in self._used_at
            and (parent is None or parent in self._used_at)
            and self._is_writable
            and self._num_queued_bytes + num_bytes <= MAX_QUEUED_BYTES
        )

    def write(self, key: bytes, parent: bytes | None, depth: int, payload: Bytes) -> None:
        """Puts a page into the queue. Takes the array over."""
        self._used_at[key] = time.monotonic()
        with self._counting:
            self._num_queued_bytes += payload.nbytes
        self._queue.put(_Page(key, parent, depth, payload))

    def touch(self, key: bytes) -> None:
        """Notes that a page was used, so that others go before it."""
        now, before = time.monotonic(), self._used_at.get(key)
        if before is not None and now - before > _TOUCH_SECONDS and self._is_writable:
            self._used_at[key] = now
            self._queue.put(_Page(key, None, 0, None))

    def close(self) -> None:
        """Writes what is in the queue and ends. Idempotent."""
        self._stop()

    # -- the writer's thread ----------------------------------------------------------------------

    def _obey(self, page: _Page) -> None:
        path = self._folder.path_of(page.key)
        if page.payload is None:
            with contextlib.suppress(OSError):
                os.utime(path)
            return
        try:
            if self._is_writable:
                self._write(path, page, page.payload)
        except OSError as error:
            self._is_writable = False
            _log.warning(
                "the prefix cache in %s cannot be written (%s); nothing more is stored by this process",
                self._folder.folder,
                error.strerror or error,
            )
        finally:
            with self._counting:
                self._num_queued_bytes -= page.payload.nbytes

    def _write(self, path: Path, page: _Page, payload: Bytes) -> None:
        with contextlib.suppress(FileNotFoundError, DamagedPageError):
            read_page(path, page.key, payload.nbytes)
            os.utime(path)  # another process was faster
            return
        temporary = self._folder.make_place(path)
        num_bytes = write_page(path, page.key, page.parent, page.depth, payload, temporary)
        self.num_written_pages += 1
        if self._folder.add(num_bytes):
            for key in self._folder.make_room():
                self._used_at.pop(key, None)


def _end(queue: SimpleQueue[_Page | None], writer: threading.Thread) -> None:
    queue.put(None)
    if writer is not threading.current_thread():
        writer.join()


def _write_all(reference: weakref.ref[PageStore], queue: SimpleQueue[_Page | None]) -> None:
    """What the thread does. While it waits it holds nothing of the store, which can be collected."""
    while (page := queue.get()) is not None:
        store = reference()
        if store is None:
            return
        store._obey(page)
        del store
