"""Shows on the screen what a chat says, which runs on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchless.chat.partners import Piece, Progress, Report
from torchless.tui.transcript import Notice, listing_table

if TYPE_CHECKING:
    from torchless.chat.chat import Chat
    from torchless.tui.app import ChatApp

__all__ = ["ScreenView"]


class ScreenView:
    """A chat's view (`torchless.chat.view.View`). The chat's thread calls its methods and waits for the screen's.

    Pieces of an answer do not wait: they are collected, and the screen takes them a few times a second.
    """

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._pieces: list[Piece] = []  # under the lock

    def take_pieces(self) -> list[Piece]:
        """What has come since the last call. For the screen's thread."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
        return pieces

    def show(self, text: str) -> None:
        self._on_screen(self._app.add_part, Notice(text, "output"))

    def listing(self, title: str, items: Iterable[tuple[str, str]]) -> None:
        self._on_screen(self._app.add_part, Notice(listing_table(title, items), "output"))

    def note(self, text: str) -> None:
        self._on_screen(self._app.add_part, Notice(text, "note"))

    def warn(self, text: str) -> None:
        self._on_screen(self._app.add_part, Notice(text, "warning"))

    def error(self, text: str) -> None:
        self._on_screen(self._app.add_part, Notice(text, "error"))

    def begin_answer(self) -> None:
        self._on_screen(self._app.begin_answer)

    def piece(self, piece: Piece) -> None:
        with self._lock:
            self._pieces.append(piece)

    def end_answer(self, report: Report | None) -> None:
        self._on_screen(self._app.end_answer, report)

    def interrupted(self) -> bool:
        return True  # Ctrl-C is a key here, which stops the answer

    @contextmanager
    def loading(self, title: str) -> Iterator[Progress]:
        def progress(done_bytes: int, total_bytes: int) -> None:
            self._app.load_progress = (title, done_bytes, total_bytes)

        self._app.load_progress = (title, 0, 0)
        try:
            yield progress
        finally:
            self._app.load_progress = None

    def restarted(self, chat: Chat) -> None:
        messages = [dict(message) for message in chat.conversation.messages]
        self._on_screen(self._app.show_conversation, messages)

    def _on_screen(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Runs something on the screen's thread and waits for it; nothing once the screen has gone."""
        if self._app.is_leaving:
            return
        try:
            self._app.call_from_thread(function, *arguments)
        except BaseException:
            if not self._app.is_leaving:
                raise
