"""Who shows a chat, as the chat sees it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from torchless.chat.partners import Piece, Progress, Report

if TYPE_CHECKING:
    from torchless.chat.chat import Chat

__all__ = ["View"]


class View(Protocol):
    """Shows what happens in a chat. Its methods are called by the thread that called the chat's."""

    def show(self, text: str) -> None:
        """What a command has to say."""
        ...

    def listing(self, title: str, items: Iterable[tuple[str, str]]) -> None:
        """What a command has to say: names and values. Those without a value are left out."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know, and a script need not."""
        ...

    def warn(self, text: str) -> None:
        """Something that a script should know too."""
        ...

    def error(self, text: str) -> None:
        """Something failed."""
        ...

    def begin_answer(self) -> None:
        """An answer is about to come."""
        ...

    def piece(self, piece: Piece) -> None:
        """The next piece of it."""
        ...

    def end_answer(self, report: Report | None) -> None:
        """The answer has ended; without a report, by an error."""
        ...

    def interrupted(self) -> bool:
        """Ctrl-C came while an answer was written. Returns whether only that answer was meant."""
        ...

    def loading(self, title: str) -> AbstractContextManager[Progress]:
        """Shows progress while something is loaded."""
        ...

    def restarted(self, chat: Chat) -> None:
        """The conversation is another one now: cleared, loaded, or shorter."""
        ...
