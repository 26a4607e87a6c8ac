"""Breaks streamed text between words at the edge of a terminal, which would break inside them."""

from __future__ import annotations

import unicodedata

__all__ = ["WordWrap"]


class WordWrap:
    """Turns text into what a terminal shall be sent. Text comes in pieces; a word may come in several.

    A word that reaches the edge is taken back (cursor left, erase) and written on the next line. The last
    column stays free, since terminals disagree about where the cursor is after it has been written.
    """

    def __init__(self) -> None:
        self._column = 0  # where the cursor is
        self._word = ""  # what was written since the last place to break
        self._word_width = 0

    def feed(self, text: str, num_columns: int) -> str:
        """What to write for `text` on a terminal of this width.

        >>> WordWrap().feed("one two", 6)
        'one t\\x1b[1D\\x1b[K\\ntwo'
        """
        return "".join(self._put(character, num_columns - 1) for character in text)

    def _put(self, character: str, room: int) -> str:
        if character == "\n":
            return self._break(character)
        if character == "\t":
            character = " " * (8 - self._column % 8)
        width = _width(character)
        before = ""
        if self._column + width > room:
            if character.isspace():  # the break stands for it
                return self._break("\n")
            before = self._move_word(width, room)
        self._column += width
        if character.isspace() or width == 2:  # between such letters (Chinese, Japanese) lines may break
            self._word, self._word_width = "", 0
        else:
            self._word += character
            self._word_width += width
        return before + character

    def _break(self, text: str) -> str:
        self._column, self._word, self._word_width = 0, "", 0
        return text

    def _move_word(self, width: int, room: int) -> str:
        """Begins a line, with the word that was begun if it fits there."""
        if self._word_width == self._column or self._word_width + width > room:
            return self._break("\n")
        self._column = self._word_width
        if not self._word_width:
            return "\n"
        return f"\x1b[{self._word_width}D\x1b[K\n{self._word}"


def _width(text: str) -> int:
    """Columns that a terminal takes for one character (or for several spaces)."""
    if len(text) > 1 or text.isascii():
        return len(text)
    if unicodedata.category(text) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(text) in "WF" else 1
