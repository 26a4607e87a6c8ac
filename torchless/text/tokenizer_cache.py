"""Keeps built tokenizers on disk, since building one of 128k tokens takes a second.

A file that cannot be read, written or trusted is treated as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from torchless.text.tokenizer_build import BuiltTokenizer

__all__ = ["cache_folder", "hash_key", "load", "store"]

_MAX_BYTES = 1 << 28
_MAGIC = b"torchless tokenizer 1 "


def cache_folder() -> Path:
    """``$TORCHLESS_CACHE``, else ``$XDG_CACHE_HOME/torchless``, else ``~/.cache/torchless``."""
    own = os.environ.get("TORCHLESS_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "torchless"


def hash_key(parts: Iterable[bytes]) -> str:
    """A name for the cache file: a hash of everything that the tokenizer is built from."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def load(key: str) -> BuiltTokenizer | None:
    """The tokenizer stored under `key`; None when absent, damaged, or writable by others."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        content = _read_own_file(_path(key))
        head, _, body = content.partition(b"\n")
        digest, _, extras = head.removeprefix(_MAGIC).partition(b" ")
        if not head.startswith(_MAGIC) or digest.decode() != _checksum(extras + body):
            return None
        fields = json.loads(extras)
        raw_tokens = {int(index): bytes.fromhex(text) for index, text in fields["raw"].items()}
        return BuiltTokenizer(body.decode(), raw_tokens, frozenset(fields["missing"]))
    return None


def store(key: str, built: BuiltTokenizer) -> None:
    """Stores a tokenizer; other processes see the whole file or none."""
    fields = {
        "raw": {index: raw.hex() for index, raw in built.raw_tokens.items()},
        "missing": sorted(built.missing_bytes),
    }
    extras, body = json.dumps(fields).encode(), built.json.encode()
    with suppress(
        OSError, ValueError, RuntimeError
    ):  # No room, no right to write, no home: the next load builds again.
        path = _path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tokenizer-")  # Created with mode 0600.
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + _checksum(extras + body).encode() + b" " + extras + b"\n")
                file.write(body)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _path(key: str) -> Path:
    return cache_folder() / "tokenizers" / f"{key}.tokenizer"


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def _read_own_file(path: Path) -> bytes:
    """Raises OSError unless it is a plain file of this user that nobody else can write."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        owned = not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
        if not stat.S_ISREG(status.st_mode) or not owned or status.st_size > _MAX_BYTES:
            raise OSError("not a file to trust")
        return file.read()
