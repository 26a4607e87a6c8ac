"""What bytes a token stands for, in the ways in which vocabularies write them."""

from __future__ import annotations

import re

__all__ = ["BYTE_LETTERS", "PIECE_BYTES", "byte_level_bytes", "spm_bytes", "word_piece_bytes"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> tuple[str, ...]:
    """GPT-2's letters: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(256))


BYTE_LETTERS = _byte_letters()
"""The letter that byte-level vocabularies write for each byte."""

_LETTER_BYTES = str.maketrans({letter: chr(byte) for byte, letter in enumerate(BYTE_LETTERS)})
_LETTERS = frozenset(BYTE_LETTERS)


def byte_level_bytes(text: str) -> bytes:
    """The bytes of a byte-level token; a text with a character that is no byte's letter stands for itself."""
    if _LETTERS.issuperset(text):
        return text.translate(_LETTER_BYTES).encode("latin-1")
    return text.encode()


def spm_bytes(text: str) -> bytes:
    """The bytes of a SentencePiece token: ``<0x0A>`` is a byte, U+2581 is a space."""
    match = _BYTE_TOKEN.fullmatch(text)
    return bytes([int(match[1], 16)]) if match else text.replace("\u2581", " ").encode()


def word_piece_bytes(text: str) -> bytes:
    """The bytes of a WordPiece token: it begins a word, behind a space, unless ``##`` says that it goes on."""
    return text[2:].encode() if text.startswith("##") and len(text) > 2 else b" " + text.encode()


PIECE_BYTES = {"byte-level": byte_level_bytes, "sentencepiece": spm_bytes, "wordpiece": word_piece_bytes}
"""What reads a token of each kind of vocabulary (`TokenizerSpec.kind`)."""
