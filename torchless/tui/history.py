"""What was typed into chats, for the arrow keys: in memory, and in a file that only the user can read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TextIO

__all__ = ["History", "history_path"]

MAX_ENTRIES = 1000


def history_path() -> Path:
    """Where typed messages are kept: ``$XDG_STATE_HOME/torchless/chat_history.jsonl``."""
    state = os.environ.get("XDG_STATE_HOME")
    folder = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "torchless" / "chat_history.jsonl"


class History:
    """Typed messages, oldest first, and a place among them that the arrow keys move.

    Args:
        path: a file to read and to add to; None keeps them in memory only.

    Attributes:
        failure: why the file could not be used, or None.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.failure: str | None = None
        self._entries: list[str] = [] if path is None else self._read(path)
        self._place = len(self._entries)
        self._draft = ""  # what was being typed when the arrow keys went back

    def add(self, text: str) -> None:
        """Appends a message, unless it is the last one again, and goes to the end."""
        self._draft = ""
        if not self._entries or self._entries[-1] != text:
            self._entries.append(text)
            if self._path is not None:
                self._append(self._path, text)
        self._place = len(self._entries)

    def back(self, current: str) -> str | None:
        """The message before, or None at the first one. `current` is what stands in the field."""
        if self._place == 0:
            return None
        if self._place == len(self._entries):
            self._draft = current
        self._place -= 1
        return self._entries[self._place]

    def forward(self) -> str | None:
        """The message after, at the end what was being typed; None behind that."""
        if self._place >= len(self._entries):
            return None
        self._place += 1
        return self._entries[self._place] if self._place < len(self._entries) else self._draft

    def _read(self, path: Path) -> list[str]:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self.failure = f"{path}: {error.strerror}"
            return []
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # half a line, where a process was killed
                continue
            if isinstance(entry, str):
                entries.append(entry)
        if len(entries) > 2 * MAX_ENTRIES:
            self._shorten(path, entries[-MAX_ENTRIES:])
        return entries[-MAX_ENTRIES:]

    def _shorten(self, path: Path, entries: list[str]) -> None:
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            with self._open(temporary) as file:
                file.writelines(json.dumps(entry) + "\n" for entry in entries)
            temporary.replace(path)
        except OSError as error:
            self.failure = f"{path}: {error.strerror}"

    def _append(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._open(path) as file:
                file.write(json.dumps(text) + "\n")
        except OSError as error:
            self.failure = f"{path}: {error.strerror}"

    @staticmethod
    def _open(path: Path) -> TextIO:
        """Opens a file to add to it; a new one is for the user's eyes only."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, "w", encoding="utf-8")
