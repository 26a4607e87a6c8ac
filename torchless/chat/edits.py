"""Changes to files that an answer proposes, as SEARCH/REPLACE blocks: found, checked, shown, written or forgotten."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torchless.chat.references import is_ignored
from torchless.errors import InvalidRequestError

__all__ = ["Edit", "PendingEdits", "edit_instructions", "find_edits"]

_SEARCH = re.compile(r"^<{5,9} ?SEARCH\s*$")
_DIVIDER = re.compile(r"^={5,9}\s*$")
_REPLACE = re.compile(r"^>{5,9} ?REPLACE\s*$")


class Edit(NamedTuple):
    """One block: in this file, these lines become those. No lines to search for mean a new file."""

    path: str
    search: str
    replace: str


def edit_instructions() -> str:
    """What a model is told about blocks, as part of the system message."""
    return (
        "You change files of the project in the user's current folder. Explain briefly, then give each change as a "
        "block: the file's path on a line of its own, and below it\n\n"
        "<<<<<<< SEARCH\n"
        "lines exactly as they stand in the file, enough of them to occur only once\n"
        "=======\n"
        "the lines that replace them\n"
        ">>>>>>> REPLACE\n\n"
        "Use several small blocks rather than a large one. To make a new file, leave the part below SEARCH empty. "
        "Change only files that the user has shown or asked for."
    )


def find_edits(text: str) -> tuple[list[Edit], list[str]]:
    """The blocks of an answer, and sentences about those that are broken.

    A block's file is named on the line above it (a fence may stand between), or is that of the block before.
    """
    edits: list[Edit] = []
    problems: list[str] = []
    path = ""
    lines = text.splitlines()
    position = 0
    while position < len(lines):
        if not _SEARCH.match(lines[position]):
            position += 1
            continue
        path = _path_above(lines, position) or path
        divider = _next(lines, position + 1, _DIVIDER)
        end = _next(lines, divider + 1, _REPLACE) if divider is not None else None
        if divider is None or end is None:
            missing = "=======" if divider is None else ">>>>>>> REPLACE"
            problems.append(f"a change in the answer (line {position + 1}) lacks its line {missing!r}")
            break
        if path:
            edits.append(
                Edit(path, _joined(lines[position + 1 : divider]), _joined(lines[divider + 1 : end]))
            )
        else:
            problems.append(f"a change in the answer (line {position + 1}) names no file")
        position = end + 1
    return edits, problems


@dataclass(slots=True)
class _Change:
    before: str | None  # None: there is no such file
    after: str


class PendingEdits:
    """Changes that wait for the user's word. Nothing outside of `folder` is ever written.

    Args:
        folder: the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._changes: dict[str, _Change] = {}  # by path, relative to the folder

    def __bool__(self) -> bool:
        return bool(self._changes)

    @property
    def paths(self) -> list[str]:
        """The files that would change."""
        return list(self._changes)

    def stage(self, edits: Iterable[Edit]) -> list[str]:
        """Adds changes on top of those that wait; returns sentences about those that do not fit."""
        problems = []
        for edit in edits:
            try:
                self._stage(edit)
            except InvalidRequestError as error:
                problems.append(str(error))
        return problems

    def diff(self) -> str:
        """All changes as a unified diff."""
        parts: list[str] = []
        for path, change in self._changes.items():
            before = (change.before or "").splitlines(keepends=True)
            name = "/dev/null" if change.before is None else f"a/{path}"
            for line in difflib.unified_diff(
                before, change.after.splitlines(keepends=True), name, f"b/{path}"
            ):
                parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
        return "".join(parts)

    def apply(self) -> list[str]:
        """Writes all changes; returns the paths.

        Raises:
            InvalidRequestError: a file has changed meanwhile, in which case nothing is written, or cannot be written.
        """
        for path, change in self._changes.items():
            if self._read(path) != change.before:
                raise InvalidRequestError(
                    f"{path} has changed since the answer; nothing was written. /discard, and ask again"
                )
        written = []
        for path in list(self._changes):
            self._write(path, self._changes[path].after)
            del self._changes[path]
            written.append(path)
        return written

    def discard(self) -> list[str]:
        """Forgets all changes; returns the paths."""
        paths = self.paths
        self._changes.clear()
        return paths

    def _stage(self, edit: Edit) -> None:
        path = self._checked_path(edit.path)
        waiting = self._changes.get(path)
        before = waiting.before if waiting is not None else self._read(path)
        current = waiting.after if waiting is not None else before
        if not edit.search.strip():
            if current is not None and current.strip():
                raise InvalidRequestError(f"{path} is there already, but the answer makes it anew; not taken")
            after = edit.replace
        elif current is None:
            raise InvalidRequestError(f"{path}: no such file, but the answer changes it; not taken")
        else:
            after = _replaced(path, current, edit)
        if after == before:
            self._changes.pop(path, None)
        else:
            self._changes[path] = _Change(before, after)

    def _checked_path(self, path: str) -> str:
        try:
            resolved = (self._folder / path).resolve()
        except (OSError, RuntimeError, ValueError):
            raise InvalidRequestError(f"{path!r} is not the path of a file; not taken") from None
        if not resolved.is_relative_to(self._folder) or resolved == self._folder:
            raise InvalidRequestError(f"{path} is outside of {self._folder}; not taken")
        relative = resolved.relative_to(self._folder)
        if ".git" in relative.parts:
            raise InvalidRequestError(f"{path} belongs to git; not taken")
        if is_ignored(resolved, self._folder):
            raise InvalidRequestError(f"{path} is ignored by git; not taken")
        return relative.as_posix()

    def _read(self, path: str) -> str | None:
        """The file's text with its line ends as they are; None where there is none."""
        try:
            return (self._folder / path).read_bytes().decode("utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidRequestError(f"{path}: {error.strerror}; not taken") from None
        except UnicodeDecodeError:
            raise InvalidRequestError(f"{path} is not UTF-8 text; not taken") from None

    def _write(self, path: str, text: str) -> None:
        """Replaces a file as a whole, so that none is ever half written."""
        target = self._folder / path
        temporary = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8"))
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~umask)
            Path(temporary).replace(target)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from None


def _replaced(path: str, current: str, edit: Edit) -> str:
    search, replace = edit.search, edit.replace
    if "\r\n" in current:
        search, replace = search.replace("\n", "\r\n"), replace.replace("\n", "\r\n")
    if not current.endswith("\n") and search.removesuffix("\n") in current and search not in current:
        search, replace = search.removesuffix("\n"), replace.removesuffix("\n")
    starts = [match.start() for match in re.finditer(re.escape(search), current)]
    starts = [start for start in starts if start == 0 or current[start - 1] == "\n"]  # whole lines
    first = edit.search.strip().splitlines()[0].strip()
    if not starts:
        raise InvalidRequestError(f"{path} has no lines like those that begin {first!r}; not taken")
    if len(starts) > 1:
        raise InvalidRequestError(
            f"{path} has the lines that begin {first!r} {len(starts)} times, so their place is not clear; not taken"
        )
    return current[: starts[0]] + replace + current[starts[0] + len(search) :]


def _path_above(lines: list[str], position: int) -> str:
    """The file's name above a block, without what markdown puts around it."""
    for line in reversed(lines[max(0, position - 3) : position]):
        text = line.strip()
        if not text or text.startswith("```"):
            continue
        name = text.strip("`*#: \t").removeprefix("File").removeprefix("file").strip("`*: \t")
        return name if name and not any(character.isspace() for character in name) and name[-1] != ">" else ""
    return ""


def _next(lines: list[str], start: int, mark: re.Pattern[str]) -> int | None:
    return next((i for i in range(start, len(lines)) if mark.match(lines[i])), None)


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
