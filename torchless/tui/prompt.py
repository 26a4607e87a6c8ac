"""The field where messages are typed: Enter sends, arrow keys go through what was typed before, Tab completes."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from torchless.tui.history import History

__all__ = ["PromptField"]

_QUOTES = '"""'
_NEW_LINE_KEYS = ("shift+enter", "alt+enter", "ctrl+j", "ctrl+enter")


class PromptField(TextArea):
    """One message. A line that ends with a backslash goes on; so does what begins with triple quotes, up to the next.

    Args:
        history: what was typed before.

    Attributes:
        is_choosing: a list of completions is open, which then gets the arrow keys, Enter and Escape.
    """

    @dataclass
    class Submitted(Message):
        """A message was sent."""

        text: str

    @dataclass
    class Choosing(Message):
        """A key for the list of completions: up, down, enter or escape."""

        key: str

    class CompletionWanted(Message):
        """Tab was pressed."""

    def __init__(self, history: History) -> None:
        super().__init__(
            soft_wrap=True,
            compact=True,
            highlight_cursor_line=False,
            placeholder="Ask something; / for commands, @ for files",
            id="prompt",
        )
        self._history = history
        self.is_choosing = False

    @property
    def before_cursor(self) -> str:
        """The text in front of the cursor."""
        return self.get_text_range((0, 0), self.cursor_location)

    def put(self, text: str) -> None:
        """Replaces everything and goes to the end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    def complete_with(self, text: str, num_replaced: int) -> None:
        """Puts `text` in place of the last characters before the cursor."""
        row, column = self.cursor_location
        self.replace(text, (row, column - num_replaced), (row, column))

    async def _on_key(self, event: events.Key) -> None:
        if self._handle(event.key):
            event.stop()
            event.prevent_default()
            return
        await super()._on_key(event)

    def _handle(self, key: str) -> bool:
        """Whether a key means something of its own here."""
        if self.is_choosing and key in ("up", "down", "enter", "tab", "escape"):
            self.post_message(self.Choosing("enter" if key == "tab" else key))
        elif key == "enter":
            self.send()
        elif key in _NEW_LINE_KEYS:
            self.insert("\n")
        elif key == "tab":
            self.post_message(self.CompletionWanted())
        elif key == "up" and self.cursor_at_first_line:
            return self._recall(self._history.back(self.text))
        elif key == "down" and self.cursor_at_last_line:
            return self._recall(self._history.forward())
        else:
            return False
        return True

    def _recall(self, text: str | None) -> bool:
        if text is None:
            return False
        self.put(text)
        return True

    def send(self) -> None:
        """Sends the message, unless it goes on in a next line."""
        text = self.text
        row, column = self.cursor_location
        line = self.document.get_line(row)
        if column == len(line) and line.endswith("\\"):
            self.replace("\n", (row, column - 1), (row, column))
        elif text.lstrip().startswith(_QUOTES) and text.count(_QUOTES) < 2:
            self.insert("\n")
        elif text.strip():
            self.post_message(self.Submitted(_unquoted(text)))


def _unquoted(text: str) -> str:
    """A message without the triple quotes around it."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES) and len(stripped) >= 2 * len(_QUOTES):
        return stripped.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return text.rstrip()
