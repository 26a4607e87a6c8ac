"""The chat line by line: on a terminal, or through pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torchless.chat.chat import Chat
from torchless.cli.loading import LoadProgress
from torchless.cli.message_reader import MessageReader
from torchless.cli.terminal import (
    TextOutput,
    is_terminal,
    listing,
    note,
    print_error,
    print_warning,
    printable,
)

if TYPE_CHECKING:
    from torchless.chat.conversation import Conversation
    from torchless.chat.partners import Partner, Piece, Report

__all__ = ["ChatSession"]


class ChatSession:
    """Reads messages, hands them to a chat and prints what comes: it is the chat's view.

    Attributes:
        chat: what is said and done.
    """

    def __init__(
        self,
        partner: Partner,
        conversation: Conversation,
        constraint: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Sets a chat up; see `Chat`."""
        self._reader = MessageReader()
        self._output = TextOutput()
        self._is_reasoning = False
        self.chat = Chat(partner, conversation, self, constraint=constraint, **options)

    def run(self) -> bool:
        """Chats until the user leaves or the input ends. A failed question or command does not end it.

        Returns:
            Whether nothing failed. (A person sees that; a script wants to know.)

        Raises:
            KeyboardInterrupt: Ctrl-C while input comes from a pipe.
            InvalidRequestError: piped text is not valid UTF-8.
        """
        reader, is_flawless = self._reader, True
        note(f"Chatting with {self.chat.partner.name}. /help lists the commands, Ctrl-D leaves.")
        while not self.chat.is_over:
            try:
                message = reader.read()
            except KeyboardInterrupt:
                if not reader.is_interactive:
                    raise
                print()
                note("Ctrl-D or /exit leaves.")
                continue
            if message is None:
                if reader.is_interactive:
                    print()
                break
            is_flawless &= self.chat.take(message)
        return is_flawless or reader.is_interactive

    # -- the chat's view; see `torchless.chat.view.View` ------------------------------------------

    def show(self, text: str) -> None:
        print(printable(text) if is_terminal(sys.stdout) else text)

    def listing(self, title: str, items: Iterable[tuple[str, str]]) -> None:
        print("\n".join(listing(title, items)))

    def note(self, text: str) -> None:
        note(text)

    def warn(self, text: str) -> None:
        print_warning(text)

    def error(self, text: str) -> None:
        print_error(text)

    def begin_answer(self) -> None:
        self._output = TextOutput()
        self._is_reasoning = False

    def piece(self, piece: Piece) -> None:
        """Prints a piece: reasoning dimmed, and only where a person looks, since it is no part of the answer."""
        if piece.is_reasoning:
            if not is_terminal(sys.stdout):
                return
            if not self.chat.shows_reasoning:
                if not self._is_reasoning:
                    self._output.write("(thinking)", dim=True)
            else:
                self._output.write(piece.text, dim=True)
            self._is_reasoning = True
            return
        if self._is_reasoning:
            self._is_reasoning = False
            self._output.finish_line()
            self._output.write("\n")
        self._output.write(piece.text)

    def end_answer(self, report: Report | None) -> None:
        self._output.finish_line()

    def interrupted(self) -> bool:
        self._output.interrupted()
        return self._reader.is_interactive

    def loading(self, title: str) -> LoadProgress:
        verb, _, name = title.partition(" ")
        return LoadProgress(name, verb)

    def restarted(self, chat: Chat) -> None:
        """What was printed stays."""
