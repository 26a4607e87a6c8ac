"""Where a prompt comes from: the command line, a file, standard input; and which word names the model."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from torchless.cli.terminal import note
from torchless.errors import InvalidRequestError

__all__ = [
    "ModelAndText",
    "check_argument",
    "gather_text",
    "looks_like_path",
    "one_model",
    "read_stdin",
    "read_text_file",
    "split_words",
]

_PATIENCE_SECONDS = 2.0  # a pipe that stays open looks like a program that hangs
_MODEL_SUFFIXES = (".gguf", ".safetensors")


class ModelAndText(NamedTuple):
    """The two meanings of a verb's words; None where there is none."""

    model: str | None
    text: str | None


def looks_like_path(word: str) -> bool:
    """Whether `word` can only be meant as a file: it ends like a model, or has a separator.

    A sentence may hold a slash ("yes and/or no"): with spaces in it, a word is a path only if the part
    before its last separator is a folder.

    >>> looks_like_path("model.gguf"), looks_like_path("models/x"), looks_like_path("this and/or that")
    (True, True, False)
    """
    separators = [position for position in map(word.rfind, (os.sep, os.altsep or os.sep)) if position >= 0]
    if "\n" in word or (not separators and not word.lower().endswith(_MODEL_SUFFIXES)):
        return False
    if word.lower().endswith(_MODEL_SUFFIXES) or not any(character.isspace() for character in word):
        return True
    return Path(word[: max(separators) + 1]).expanduser().is_dir()


def split_words(words: Sequence[str], model: str | None, *, text_given: bool) -> ModelAndText:
    """Which of a verb's words is the model; the others, joined by spaces, are the text.

    With `model` (from ``--model``) all words are text. A single word that names no file is a text for the
    built-in model, unless it looks like a path or the text came otherwise (`text_given`).
    """
    if model is None and words:
        alone = len(words) == 1 and not text_given
        if not alone or looks_like_path(words[0]) or (words[0] and Path(words[0]).expanduser().exists()):
            model, words = words[0], words[1:]
    text = " ".join(words) if words else None
    if text is not None and text_given:
        raise click.UsageError(f"a prompt was given twice; one of them is {shortened(text)!r}")
    if text is not None:
        check_argument(text)
    return ModelAndText(model, text)


def one_model(words: Sequence[str], model: str | None) -> str | None:
    """The model that a verb without text works on; None where none is named."""
    given = [*words, *([model] if model is not None else [])]
    if len(given) > 1:
        raise click.UsageError(f"expected one model, found {len(given)}: {' '.join(given)}")
    return given[0] if given else None


def gather_text(text: str | None, option: str | None, file: str | None) -> str | None:
    """The whole prompt: from one of the command line's three ways, with piped standard input after it.

    Args:
        text: the verb's words.
        option: ``--prompt``.
        file: ``--file``; ``-`` is standard input.

    Raises:
        InvalidRequestError: not valid UTF-8; the message has the offset.
    """
    if option is not None and file is not None:
        raise click.UsageError("give either --prompt or --file, not both")
    if option is not None:
        check_argument(option)
        text = option
    elif file is not None and file != "-":
        text = read_text_file(file)
    piped = read_stdin() if file == "-" or _is_piped() else None
    if not piped:
        return text if text is not None else piped
    return f"{text}\n\n{piped}" if text else piped


def read_text_file(path: str) -> str:
    """A UTF-8 text file without its last line end (editors add one, and it would end the prompt's line).

    Raises:
        InvalidRequestError: missing, unreadable, or not valid UTF-8.
    """
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}; expected a text file") from None
    return _decode(raw, path)


def read_stdin() -> str:
    """All of standard input, without its last line end. See `read_text_file`."""
    if sys.stdin is None:
        return ""
    buffer = getattr(sys.stdin, "buffer", None)
    hint = threading.Timer(_PATIENCE_SECONDS, note, ["Waiting for the end of standard input (Ctrl-D)."])
    hint.daemon = True
    hint.start()
    try:
        return _decode(sys.stdin.read().encode() if buffer is None else buffer.read(), "standard input")
    finally:
        hint.cancel()


def decode_utf8(raw: bytes, source: str, offset: int = 0) -> str:
    """Strict UTF-8, or an InvalidRequestError with the position of the first wrong byte."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{source} is not valid UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start} "
            f"({error.reason}); convert it first, for example with 'iconv -f LATIN1 -t UTF-8'"
        ) from None


def shortened(text: str, length: int = 40) -> str:
    """The beginning of `text`, for messages."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _decode(raw: bytes, source: str) -> str:
    text = decode_utf8(raw, source).removeprefix("\ufeff")
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def check_argument(text: str) -> None:
    """Python hands over arguments that are not UTF-8 with their bytes as lone surrogates."""
    decode_utf8(text.encode("utf-8", "surrogateescape"), "the prompt")


def _is_piped() -> bool:
    """Whether something other than a person may stand behind standard input."""
    try:
        return sys.stdin is not None and not sys.stdin.isatty()
    except ValueError:  # closed
        return False
