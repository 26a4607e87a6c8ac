"""One page of keys and values as a file: what it says of itself, how it is written as a whole, how it is checked.

Layout, little-endian: the magic, ``version`` (u32), ``depth`` (u32: pages before it in its text), ``num_bytes`` of the
payload (u64), ``key`` and ``parent`` (32 bytes each: its chain key and that of the page before it, zeros where there is
none), 32 bytes BLAKE2b over all of this and the payload, then the payload. A file that is not exactly this is no page.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "HEADER_BYTES",
    "KEY_BYTES",
    "DamagedPageError",
    "PageHeader",
    "read_header",
    "read_page",
    "write_page",
]

KEY_BYTES = 32
VERSION = 1
_MAGIC = b"tlkvpage"
_FIELDS = struct.Struct(f"<8sIIQ{KEY_BYTES}s{KEY_BYTES}s")
HEADER_BYTES = _FIELDS.size + 32

Bytes = npt.NDArray[np.uint8]


class DamagedPageError(Exception):
    """A file that is no page, or not the one that it should be. Never reaches a user."""


class PageHeader(NamedTuple):
    """What a file says of its page."""

    depth: int
    num_bytes: int
    key: bytes
    parent: bytes | None


def write_page(
    path: Path, key: bytes, parent: bytes | None, depth: int, payload: Bytes, temporary: Path
) -> int:
    """Writes a page under a temporary name in the same folder, then renames it: others see all of it or nothing.

    Returns:
        Bytes that it takes.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    fields = _FIELDS.pack(_MAGIC, VERSION, depth, payload.nbytes, key, parent or bytes(KEY_BYTES))
    content = np.ascontiguousarray(payload)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            for part in (fields, _checksum(fields, content), content.data):
                _write_all(file.fileno(), part)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return HEADER_BYTES + content.nbytes


def read_page(path: Path, key: bytes, num_bytes: int) -> Bytes:
    """The payload of a page, checked: a read-only view of the file's memory map.

    Args:
        key: its chain key.
        num_bytes: size of the payload.

    Raises:
        FileNotFoundError: there is none.
        DamagedPageError: it is not what it should be.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != HEADER_BYTES + num_bytes:
            raise DamagedPageError(f"{size} bytes, expected {HEADER_BYTES + num_bytes}")
        content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    header = _parsed(content[:HEADER_BYTES])
    payload = np.frombuffer(content, np.uint8, num_bytes, HEADER_BYTES)
    if header.num_bytes != num_bytes or header.key != key:
        raise DamagedPageError("the header belongs to another page")
    if content[_FIELDS.size : HEADER_BYTES] != _checksum(content[: _FIELDS.size], payload):
        raise DamagedPageError("the checksum does not match")
    return payload


def read_header(path: Path) -> PageHeader:
    """What a file says of its page; its payload is not looked at.

    Raises:
        DamagedPageError: it is no page.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _parsed(file.read(HEADER_BYTES))


def _parsed(content: bytes) -> PageHeader:
    if len(content) < HEADER_BYTES:
        raise DamagedPageError(f"{len(content)} bytes are too few for a header")
    magic, version, depth, num_bytes, key, parent = _FIELDS.unpack(content[: _FIELDS.size])
    if magic != _MAGIC or version != VERSION:
        raise DamagedPageError(f"it begins with {magic!r}, version {version}")
    return PageHeader(depth, num_bytes, key, parent if any(parent) else None)


def _checksum(fields: bytes, payload: Bytes) -> bytes:
    digest = blake2b(fields, digest_size=32)
    digest.update(payload.data)
    return digest.digest()


def _write_all(handle: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while len(view):
        view = view[os.write(handle, view) :]
