"""Reads SentencePiece's ``tokenizer.model``, a protobuf file, into the keys that GGUF files use.

Only the fields that change the arithmetic are read (sentencepiece_model.proto of the SentencePiece project);
the file is hostile until checked: every length is compared with the bytes that are left.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from torchless.errors import FormatError, UnsupportedError

__all__ = ["parse_sentencepiece_model", "read_sentencepiece_model"]

_MAX_BYTES = 1 << 28
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field numbers.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_TRAINER_MODEL_TYPE, _TRAINER_SPACE_AS_SUFFIX, _TRAINER_BYTE_FALLBACK = 3, 24, 35
_TRAINER_UNK, _TRAINER_BOS, _TRAINER_EOS, _TRAINER_PAD = 40, 41, 42, 43
_NORM_NAME, _NORM_CHARSMAP, _NORM_PREFIX, _NORM_EXTRA_SPACES, _NORM_ESCAPE = 1, 2, 3, 4, 5


def read_sentencepiece_model(path: Path) -> dict[str, Any]:
    """The tokenizer of a ``tokenizer.model`` file as GGUF metadata (``tokenizer.ggml.*``).

    Raises:
        FormatError: the file is not a SentencePiece model, or is cut off.
        UnsupportedError: a unigram, word or character model, or one that rewrites characters.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise FormatError(f"{path}: {path.stat().st_size} bytes are too many for a SentencePiece model")
    return parse_sentencepiece_model(path.read_bytes(), path)


def parse_sentencepiece_model(data: bytes, path: Path) -> dict[str, Any]:
    """As `read_sentencepiece_model`, for content that was read already; `path` is for messages."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(path, data, "the file"):
        if number == _PIECES:
            pieces.append(_piece(path, _message(path, value, "pieces"), len(pieces)))
        elif number == _TRAINER:
            trainer.update(_fields(path, _message(path, value, "trainer_spec"), "trainer_spec"))
        elif number == _NORMALIZER:
            normalizer.update(_fields(path, _message(path, value, "normalizer_spec"), "normalizer_spec"))
    if not pieces:
        _fail(path, "it has no pieces")
    _check_kind(path, trainer, normalizer)
    return _metadata(pieces, trainer, normalizer)


def _check_kind(path: Path, trainer: dict[int, Any], normalizer: dict[int, Any]) -> None:
    kind = trainer.get(_TRAINER_MODEL_TYPE, 1)
    problem = None
    if kind != 2:
        problem = f"its model type is {_MODEL_TYPES.get(kind, kind)!r}, torchless reads 'bpe'"
    elif normalizer.get(_NORM_CHARSMAP):
        name = normalizer.get(_NORM_NAME, b"")
        problem = f"it rewrites characters by the rules {name.decode(errors='replace')!r}"
    elif trainer.get(_TRAINER_SPACE_AS_SUFFIX, 0):
        problem = "it writes spaces behind words (treat_whitespace_as_suffix)"
    elif not normalizer.get(_NORM_ESCAPE, 1):
        problem = "it keeps spaces as they are (escape_whitespaces is false)"
    if problem:
        raise UnsupportedError(f"{path}: {problem}; give the folder a tokenizer.json instead")


def _metadata(
    pieces: list[tuple[str, float, int]], trainer: dict[int, Any], normalizer: dict[int, Any]
) -> dict[str, Any]:
    prefix = "tokenizer.ggml."
    texts, scores, types = (list(column) for column in zip(*pieces, strict=True))
    metadata: dict[str, Any] = {
        prefix + "model": "llama",
        prefix + "tokens": texts,
        prefix + "scores": scores,
        prefix + "token_type": types,
        prefix + "add_space_prefix": bool(normalizer.get(_NORM_PREFIX, 1)),
        prefix + "remove_extra_whitespaces": bool(normalizer.get(_NORM_EXTRA_SPACES, 1)),
    }
    roles = (("unknown", _TRAINER_UNK, 0), ("bos", _TRAINER_BOS, 1), ("eos", _TRAINER_EOS, 2))
    for role, number, default in (*roles, ("padding", _TRAINER_PAD, -1)):
        index = _signed(trainer.get(number, default))
        if 0 <= index < len(texts):
            metadata[f"{prefix}{role}_token_id"] = index
    return metadata


def _piece(path: Path, data: bytes, index: int) -> tuple[str, float, int]:
    """Text, score and type of one piece. The type numbers are those of GGUF, which took them from here."""
    fields = dict(_fields(path, data, f"piece {index}"))
    text, score, kind = (
        fields.get(_PIECE_TEXT),
        fields.get(_PIECE_SCORE, bytes(4)),
        fields.get(_PIECE_TYPE, 1),
    )
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        _fail(path, f"piece {index} has no text or no score")
    if not isinstance(kind, int) or not 1 <= kind <= 6:
        _fail(path, f"piece {index} has type {kind!r}, expected 1 to 6")
    return text.decode("utf-8", "surrogateescape"), struct.unpack("<f", score)[0], kind


def _message(path: Path, value: int | bytes, name: str) -> bytes:
    if not isinstance(value, bytes):
        _fail(path, f"{name} is a number, expected a message")
    return value


def _signed(value: int | bytes) -> int:
    """An int32, which protobuf writes as 64 bits when negative."""
    if not isinstance(value, int):
        return -1
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(path: Path, data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one message: an int for varints, bytes for everything else."""
    position = 0
    while position < len(data):
        tag, position = _varint(path, data, position, where)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            _fail(path, f"{where} has field number 0 at byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(path, data, position, where)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = _varint(path, data, position, where)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            _fail(path, f"{where} has wire type {wire_type} at byte {position}")
        if size > len(data) - position:
            _fail(
                path, f"{where} is cut off: field {number} has {size} bytes, {len(data) - position} are left"
            )
        yield number, data[position : position + size]
        position += size


def _varint(path: Path, data: bytes, position: int, where: str) -> tuple[int, int]:
    value = 0
    shift = 0
    while True:
        if position >= len(data) or shift >= 70:
            found = "is cut off inside a number" if shift < 70 else "has a number of more than ten bytes"
            _fail(path, f"{where} {found}")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value & ((1 << 64) - 1), position


def _fail(path: Path, problem: str) -> NoReturn:
    raise FormatError(f"{path}: not a SentencePiece model: {problem}")
