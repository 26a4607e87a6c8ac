"""What the verbs that score models on texts share: the text, its chunks, a line that tells how far they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from torchless.cli.options import Option
from torchless.cli.prompt import read_stdin, read_text_file
from torchless.cli.terminal import is_terminal, terminal_width

__all__ = ["TEXT_OPTIONS", "StatusLine", "chunk_length", "model_and_text", "read_text"]

_HEADING = "Text and output"

TEXT_OPTIONS = (
    Option("-f", "--file", heading=_HEADING, metavar="FILE", help="Same as the argument TEXT."),
    Option(
        "--chunks",
        type=click.IntRange(min=1),
        metavar="N",
        heading=_HEADING,
        help="Score only the first N chunks.",
    ),
    Option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        heading=_HEADING,
        help="Form of the result.",
    ),
)


def model_and_text(words: Sequence[str], model: str | None, file: str | None) -> tuple[str | None, str]:
    """The model's path (None: the built-in one) and the text, from ``[MODEL] TEXT`` and their options."""
    names = [*([model] if model is not None else []), *words, *([file] if file is not None else [])]
    if not 1 <= len(names) <= 2 or (model is not None and len(names) == 1):
        raise click.UsageError(
            f"expected a text file, or a model and a text file; found {' '.join(names) or 'neither'}"
        )
    return (names[0] if len(names) == 2 else None), read_text(names[-1])


def read_text(path: str) -> str:
    """A text file's contents, or standard input's for ``-``."""
    return read_stdin() if path == "-" else read_text_file(path)


def chunk_length(load: dict[str, Any]) -> int:
    """Tokens of a chunk: --ctx, or llama-perplexity's 512."""
    context: int = 512 if load.get("ctx", "auto") == "auto" else load["ctx"]
    return context


class StatusLine:
    """A line on stderr that is written over, if that is a terminal."""

    def __init__(self) -> None:
        self._is_shown = False

    def show(self, text: str) -> None:
        """Replaces what the line says."""
        if is_terminal(sys.stderr):
            self._is_shown = True
            sys.stderr.write("\r\x1b[2K" + text[: terminal_width(sys.stderr) - 1])
            sys.stderr.flush()

    def clear(self) -> None:
        """Leaves nothing behind."""
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
