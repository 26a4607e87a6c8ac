"""A model file in memory: mapped read-only, handed out as views, given back piece by piece."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from torchless.errors import FormatError, OutOfMemoryError
from torchless.quants import Bytes

__all__ = ["MappedFile", "is_mapped"]


class MappedFile:
    """Two maps of one file: a header for as long as the object lives, and data until `close`.

    They are apart because metadata arrays live in the header's map for as long as anybody holds them, and
    the data's map shall go when the weights have been packed.

    Attributes:
        path: the file.
        header: memory map of the whole file, meant for its metadata.
    """

    __slots__ = ("_data", "header", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise FormatError(f"{path}: the file is empty; get it again")
            try:
                self.header = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                self._data: mmap.mmap | None = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                raise OutOfMemoryError(
                    f"{path}: {size} bytes cannot be mapped into the address space of this process; "
                    f"raise its limit (ulimit -v) or use a smaller model"
                ) from None

    def view(self, offset: int, num_bytes: int) -> Bytes:
        """A read-only zero-copy view; it keeps the map alive after `close`."""
        if num_bytes == 0:
            empty: Bytes = np.empty(0, np.uint8)
            empty.flags.writeable = False
            return empty
        return np.frombuffer(self._map(), np.uint8, num_bytes, offset)

    def drop_pages(self, offset: int, num_bytes: int) -> None:
        """Lets the operating system take these bytes' memory back; a later read loads them again."""
        if num_bytes == 0 or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._map().madvise(mmap.MADV_DONTNEED, start, offset + num_bytes - start)

    def whole(self) -> Bytes:
        """All of it: a read-only zero-copy view."""
        return np.frombuffer(self._map(), np.uint8)

    def check_size(self) -> None:
        """Raises FormatError when the file has become shorter than its map, since reading on would end the process."""
        data = self._map()
        if data.size() < len(data):
            raise FormatError(
                f"{self.path}: the file had {len(data)} bytes when it was opened and now has {data.size()}; it must "
                f"not be changed while a model runs from it: load it again"
            )

    def close(self) -> None:
        """Lets go of the data; it is unmapped once the last view is gone."""
        self._data = None

    def _map(self) -> mmap.mmap:
        if self._data is None:
            raise ValueError(f"{self.path} was closed")
        return self._data


def is_mapped(raw: Any) -> bool:
    """Whether an array is a view of a read-only map of a file."""
    while isinstance(raw, np.ndarray):
        raw = raw.base
    view = raw.obj if isinstance(raw, memoryview) else raw
    return isinstance(view, mmap.mmap) and memoryview(view).readonly
