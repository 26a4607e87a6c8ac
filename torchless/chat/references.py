"""Files in a question: ``@notes.txt``, ``@src/main.py:10-50``. Their text is sent behind the question."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from torchless.errors import InvalidRequestError

__all__ = ["is_ignored", "with_files"]

MAX_BYTES = 1 << 20
_REFERENCE = re.compile(r"(?:(?<=\s)|^)@(!?)([^\s:]+)(?::(\d+)(?:-(\d+))?)?")
_CLOSING = ".,;!?)]}'\""


class _Reference(NamedTuple):
    path: str
    first: int | None
    last: int | None
    is_forced: bool


def with_files(question: str, folder: Path) -> tuple[str, list[str]]:
    """A question and, behind it, the files that it names.

    ``@path`` stands at the start or behind white space; ``:10`` or ``:10-50`` behind it means these lines.
    ``@!path`` sends a file although git ignores it. A word that names no file stays a word.

    Returns:
        The text to send, and sentences about what was sent or taken for a word.

    Raises:
        InvalidRequestError: a file that cannot be read, is no text, too large, or ignored by git; or lines that it
            does not have.
    """
    blocks: list[str] = []
    notes: list[str] = []
    for match in _REFERENCE.finditer(question):
        found = _resolve(match, folder)
        if found is None:
            if "/" in match[2] or Path(match[2]).suffix:
                notes.append(f"@{match[2]} names no file and was sent as it is.")
            continue
        block = _block(found, folder)
        if block not in blocks:
            blocks.append(block)
            notes.append(f"Sent with it: {found.path}{_lines(found)}.")
    return "\n\n".join([question, *blocks]), notes


def is_ignored(path: Path, folder: Path) -> bool:
    """Whether git would ignore a file. False outside of a repository, and where git is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "check-ignore", "--quiet", "--", str(path.absolute())],
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _resolve(match: re.Match[str], folder: Path) -> _Reference | None:
    """The file that a reference means; punctuation behind it may belong to the sentence."""
    name = match[2]
    first = int(match[3]) if match[3] else None
    last = int(match[4]) if match[4] else first
    for candidate in (name, name.rstrip(_CLOSING)):
        try:
            if candidate and (folder / Path(candidate).expanduser()).exists():
                return _Reference(candidate, first, last, bool(match[1]))
        except (OSError, RuntimeError, ValueError):  # too long, no such user, a null byte
            continue
    return None


def _lines(found: _Reference) -> str:
    if found.first is None:
        return ""
    return f", line {found.first}" if found.first == found.last else f", lines {found.first}-{found.last}"


def _block(found: _Reference, folder: Path) -> str:
    """The file as it is sent: its name, and its text between fences."""
    path = folder / Path(found.path).expanduser()
    if path.is_dir():
        raise InvalidRequestError(f"@{found.path} is a folder; name a file in it")
    if not found.is_forced and is_ignored(path, folder):
        raise InvalidRequestError(f"@{found.path} is ignored by git; @!{found.path} sends it all the same")
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_BYTES else b""
        text = raw.decode("utf-8")
    except OSError as error:
        raise InvalidRequestError(f"@{found.path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"@{found.path} is not text: byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8"
        ) from None
    if size > MAX_BYTES:
        raise InvalidRequestError(
            f"@{found.path} has {size} bytes, more than the {MAX_BYTES} that a reference may have"
        )
    lines = text.splitlines()
    if found.first is not None and found.last is not None:
        if not 1 <= found.first <= found.last <= len(lines):
            raise InvalidRequestError(
                f"@{found.path}:{found.first}-{found.last}: the file has lines 1 to {len(lines)}"
            )
        lines = lines[found.first - 1 : found.last]
    body = "\n".join(lines)
    longest = max((len(run) for run in re.findall(r"`{3,}", body)), default=2)
    fence = "`" * (longest + 1)
    return f"{found.path}{_lines(found)}:\n{fence}{path.suffix.removeprefix('.')}\n{body}\n{fence}"
