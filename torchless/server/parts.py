"""What an answer consists of: text, reasoning, and calls of tools."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Note", "Part", "PlainReader", "Reader", "Reasoning", "Text", "ToolCall"]


@dataclass(frozen=True, slots=True)
class Text:
    """Text for whoever asked."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        name: of the tool.
        arguments: JSON text of an object.
        call_id: by which the tool's answer refers to it.
    """

    name: str
    arguments: str
    call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that whoever asked should know about the answer, such as a call that could not be read."""

    text: str


Part = Text | Reasoning | ToolCall | Note


class Reader(Protocol):
    """Takes an answer's text as it comes and says what its parts are. Belongs to one answer."""

    def push(self, text: str) -> list[Part]:
        """The parts that this piece of text completes or continues."""
        ...

    def finish(self) -> list[Part]:
        """What was held back, when no more text follows."""
        ...


class PlainReader:
    """A `Reader` to which everything is text."""

    def push(self, text: str) -> list[Part]:
        """See `Reader`."""
        return [Text(text)] if text else []

    def finish(self) -> list[Part]:
        """See `Reader`."""
        return []
