"""What the command line prints: streamed text, aligned columns, colours where a terminal shows them."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click

from torchless.cli.word_wrap import WordWrap

__all__ = [
    "TextOutput",
    "columns",
    "counted",
    "is_terminal",
    "listing",
    "note",
    "number",
    "print_error",
    "print_warning",
    "printable",
    "remark",
    "styled",
    "terminal_width",
]

# Control characters of a hostile model or file could drive the terminal; these two only move on.
_HARMLESS = "\n\t"
_VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in _HARMLESS},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


def printable(text: str) -> str:
    """`text` with control characters (but newline and tab) and broken bytes made visible.

    >>> printable("a\\x1b[2Jb")
    'a␛[2Jb'
    """
    return text.translate(_VISIBLE).encode("utf-8", "replace").decode()


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person looks at `stream`."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def styled(text: str, stream: IO[str] | None, **style: Any) -> str:
    """`text` in a `click.style`, if `stream` is a terminal that wants colours (https://no-color.org)."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, **style)


def terminal_width(stream: IO[str] | None) -> int:
    """Columns of the terminal behind `stream`; very many where there is none, since nobody wraps a file."""
    if not is_terminal(stream) or stream is None:
        return 1 << 20
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def print_error(message: str) -> None:
    """Prints ``error: message`` on stderr, wrapped between words on a terminal."""
    _print_labelled("error:", "red", message)


def print_warning(message: str) -> None:
    """Prints ``warning: message`` on stderr."""
    _print_labelled("warning:", "yellow", message)


def _print_labelled(label: str, color: str, message: str) -> None:
    lines = [_wrap(line) for line in f"{label} {printable(message)}".splitlines()]
    text = "\n".join(lines).removeprefix(label)
    click.echo(styled(label, sys.stderr, fg=color, bold=True) + text, err=True, color=True)


def note(message: str) -> None:
    """Tells a person at the terminal something that is not part of the output; nobody else sees it."""
    if is_terminal(sys.stderr):
        click.echo(styled(_wrap(printable(message)), sys.stderr, dim=True), err=True, color=True)


def remark(message: str) -> None:
    """Tells something that was asked for but is not the output, on stderr, also to files and pipes."""
    click.echo(styled(_wrap(printable(message)), sys.stderr, dim=True), err=True, color=True)


def _wrap(line: str) -> str:
    return textwrap.fill(
        line, max(20, terminal_width(sys.stderr) - 1), break_long_words=False, break_on_hyphens=False
    )


class TextOutput:
    """Generated text on its way to stdout, shown as it comes.

    On a terminal lines break between words and control characters are made visible; pipes and files get the
    text untouched.

    Attributes:
        at_line_start: the cursor stands at the start of a line.
    """

    def __init__(self, stream: IO[str] | None = None, *, wrap: bool = True) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._is_terminal = is_terminal(self._stream)
        can_wrap = wrap and self._is_terminal and os.environ.get("TERM") != "dumb"
        self._wrap = WordWrap() if can_wrap else None
        self.at_line_start = True

    def write(self, text: str, **style: Any) -> None:
        """Writes and flushes.

        Raises:
            BrokenPipeError: the reader went away.
        """
        if not text or self._stream is None:
            return
        shown = printable(text) if self._is_terminal else text
        if self._wrap is not None:
            shown = self._wrap.feed(shown, terminal_width(self._stream))
        self._stream.write(styled(shown, self._stream, **style) if style else shown)
        self._stream.flush()
        self.at_line_start = text.endswith("\n")

    def finish_line(self) -> None:
        """Ends the line that was begun, if any."""
        if not self.at_line_start:
            self.write("\n")

    def interrupted(self) -> None:
        """Ctrl-C was pressed: a terminal has shown ``^C``, so the cursor is no longer where the text ended."""
        if self._is_terminal:
            self.at_line_start = False

    def abandon(self) -> None:
        """`finish_line` without waiting for the thread that writes: for a process that is about to end."""
        self.interrupted()
        if self.at_line_start or self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            os.write(self._stream.fileno(), b"\n")


def columns(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), gap: str = "  ") -> list[str]:
    """Lines with the cells of `rows` aligned; columns numbered in `right` are aligned to the right.

    >>> columns([["a", "1"], ["bcd", "20"]], right=[1])
    ['a     1', 'bcd  20']
    """
    table = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        gap.join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def number(value: Any) -> str:
    """A number as a person would write it: files hold single precision, where 0.8 reads 0.800000011920929."""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(title: str, items: Iterable[tuple[str, str]], stream: IO[str] | None = None) -> list[str]:
    """A titled block of names and values, as lines; values are wrapped to the terminal behind `stream`.

    Items with an empty value are left out. `stream` is stdout unless given.
    """
    stream = sys.stdout if stream is None else stream
    rows = [(name, value) for name, value in items if value != ""]
    if not rows:
        return []
    width = max(len(name) for name, _ in rows)
    room = max(30, terminal_width(stream) - width - 5)
    lines = [styled(title, stream, bold=True)]
    for name, value in rows:
        pieces = [
            piece
            for line in printable(value).splitlines()
            for piece in textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
        ]
        for i, piece in enumerate(pieces):
            lines.append(f"  {name if i == 0 else '':<{width}}  {piece}")
    return lines
