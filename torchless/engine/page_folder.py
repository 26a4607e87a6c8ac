"""The folder of the prefix cache on disk: private to its user, one file for each page, and no larger than it may be.

Several processes may use it at once. They never wait for each other: a page is written under a name of its own and
renamed, so that two who write the same page write the same file, and who removes pages to make room holds a lock that
others only try.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from torchless.engine.page_file import DamagedPageError, read_header
from torchless.errors import InvalidRequestError

__all__ = ["PageFolder"]

_SUFFIX = ".page"
_TEMPORARY = ".writing-"
_ABANDONED_SECONDS = 600  # a file that is written takes a fraction of a second
_PAGES_BETWEEN_LOOKS = 64
_ROOM = 0.9  # of the cap is left full when pages are removed, so that it does not happen with every page


class PageFolder:
    """Names and sizes of page files.

    Args:
        folder: where they lie; made if need be.
        max_bytes: most that they may take together.

    Raises:
        InvalidRequestError: somebody else owns the folder or may look into it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._num_bytes = 0  # as far as this process knows
        self._num_added = 0  # pages
        with contextlib.suppress(OSError):  # read-only: what is there may still be read
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_private()

    def path_of(self, key: bytes) -> Path:
        """Where a page lies, if it is there."""
        name = key.hex()
        return self.folder / name[:2] / f"{name[2:]}{_SUFFIX}"

    def make_place(self, path: Path) -> Path:
        """Makes the folder of a page file; returns a name to write it under first.

        Raises:
            OSError: it cannot be made.
        """
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")

    def add(self, num_bytes: int) -> bool:
        """Notes that so much was written; whether there is more now than there may be."""
        if self._num_added % _PAGES_BETWEEN_LOOKS:
            self._num_bytes += num_bytes
        else:  # others may have written, too
            self._num_bytes = sum(found.st_size for _, found in self._files())
        self._num_added += 1
        return self._num_bytes > self.max_bytes

    def make_room(self) -> list[bytes]:
        """Removes what was used the longest ago, the end of a text before its beginning, and files half written.

        Returns:
            Keys of the removed pages; nothing where another process is at it.
        """
        with self._locked() as is_mine:
            if not is_mine:
                return []
            self._remove_abandoned()
            files = dict(self._files())
            self._num_bytes = sum(found.st_size for found in files.values())
            removed = []
            for path in self._by_use(files):
                if self._num_bytes <= self.max_bytes * _ROOM:
                    break
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(bytes.fromhex(path.parent.name + path.stem))
                self._num_bytes -= files[path].st_size
            return removed

    # -- parts ------------------------------------------------------------------------------------

    def _by_use(self, files: dict[Path, os.stat_result]) -> list[Path]:
        """Files in the order in which they may go. A page is used whenever one behind it is, which needs it."""
        used, depths, parents = {}, {}, {}
        for path, found in files.items():
            try:
                header = read_header(path)
            except (DamagedPageError, OSError):
                used[path], depths[path] = 0.0, 0  # no page: the first to go
                continue
            used[path], depths[path] = found.st_mtime, header.depth
            if header.parent is not None:
                parents[path] = self.path_of(header.parent)
        for path in sorted(parents, key=lambda path: -depths[path]):
            parent = parents[path]
            if parent in used:
                used[parent] = max(used[parent], used[path])
        return sorted(used, key=lambda path: (used[path], -depths[path]))

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # removed meanwhile
                yield path, path.stat()

    def _remove_abandoned(self) -> None:
        """Files of processes that were killed while they wrote."""
        for path in self.folder.glob(f"??/{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether this process alone may remove pages now. The lock goes with the process, however that ends."""
        try:
            import fcntl
        except ImportError:  # Windows: two at once remove more than they need, which costs nothing but time
            yield True
            return
        try:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
        finally:
            os.close(handle)

    def _check_private(self) -> None:
        """What was computed for a text tells the text, and what is read here is believed: nobody else may do either."""
        try:
            found = self.folder.lstat()
        except OSError:
            return  # it could not be made; the first attempt to write says so
        if not stat.S_ISDIR(found.st_mode):
            raise InvalidRequestError(f"the prefix cache's folder {self.folder} is no folder; name another")
        if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & 0o077):
            raise InvalidRequestError(
                f"the prefix cache's folder {self.folder} belongs to user {found.st_uid} with mode "
                f"{stat.S_IMODE(found.st_mode):03o}, expected user {os.getuid()} and mode 700, since its pages tell "
                f"what was asked: change that, or name another folder"
            )
