"""Downloads of single files from any web server, with resuming: for URLs that are not the hub's."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from torchless.errors import ModelNotFoundError

if TYPE_CHECKING:
    from torchless.backends.base import Progress

__all__ = ["download_file", "web_folder"]

_TRIES = 5
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20


def web_folder() -> Path:
    """Where files from other servers are kept: ``$TORCHLESS_CACHE/web``, by default below ``~/.cache``."""
    root = os.environ.get("TORCHLESS_CACHE")
    if root:
        return Path(root) / "web"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "torchless" / "web"


def download_file(url: str, progress: Progress | None = None) -> Path:
    """The path of a file from a URL: from the cache, else downloaded. A download that broke off is resumed.

    Raises:
        ModelNotFoundError: the server does not give the file; names its answer.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or name.startswith("."):
        raise ModelNotFoundError(f"{url}: the URL names no file; expected one that ends in model.gguf or so")
    folder = web_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / name
    if path.is_file():
        return path
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelNotFoundError(f"{url}: not in the cache, and HF_HUB_OFFLINE forbids downloads")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.partial"
    for attempt in range(_TRIES):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _receive(url, partial, folder / ".etag", progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is here is not a beginning of what is there
                partial.unlink(missing_ok=True)
                continue
            if error.code < 500 or attempt == _TRIES - 1:
                raise ModelNotFoundError(f"{url}: the server answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            moved = partial.exists() and partial.stat().st_size > before
            if attempt == _TRIES - 1 and not moved:
                raise ModelNotFoundError(
                    f"{url}: the download failed: {error or type(error).__name__}; what came is kept, and the next "
                    f"try goes on from there"
                ) from None
        time.sleep(min(0.2 * 2**attempt, 3))
    else:
        raise ModelNotFoundError(f"{url}: the connection broke {_TRIES} times; try again to go on from there")
    (folder / "url").write_text(url + "\n", encoding="utf-8")
    (folder / ".etag").unlink(missing_ok=True)
    partial.replace(path)
    return path


def _receive(url: str, partial: Path, tag_file: Path, progress: Progress | None) -> None:
    """Appends to `partial` until the file is whole. Raises OSError when the connection breaks."""
    start = partial.stat().st_size if partial.exists() else 0
    tag = tag_file.read_text(encoding="utf-8") if tag_file.is_file() else ""
    headers = {"User-Agent": "torchless", "Accept-Encoding": "identity"}
    if start and tag:  # without a tag nobody knows whether it is still the same file
        headers.update({"Range": f"bytes={start}-", "If-Range": tag})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        if answer.status != 206 or not _begins_at(answer, start):
            start = 0
        tag = answer.headers.get("ETag", "")
        tag_file.write_text("" if tag.startswith("W/") else tag, encoding="utf-8")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        done = start
        with partial.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            while chunk := answer.read(_CHUNK_BYTES):
                done += file.write(chunk)
                if progress is not None:
                    progress(done, total or done)
    if total is not None and done != total:
        raise ConnectionError(f"the connection broke after {done} of {total} bytes")


def _begins_at(answer: Any, start: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
