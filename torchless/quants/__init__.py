"""Storage formats of weights: one file per format in this folder, found by file name.

A format file holds a docstring that describes the layout and ``FORMAT = Format(...)``; nothing else needs
editing. `by_name`, `by_id` and `all_formats` are the lookup. Types that GGUF files may hold but torchless
does not run are known by name and size, so that a file with them can be listed and refused by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.errors import UnsupportedError

__all__ = [
    "Bytes",
    "Floats",
    "Format",
    "StoredType",
    "all_formats",
    "by_id",
    "by_name",
    "ratio",
    "stored_type",
]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CHUNK_WEIGHTS = 1 << 18


class StoredType(NamedTuple):
    """What it takes to find a tensor's bytes: name, blocks of `block_elements` weights in `block_bytes`."""

    name: str
    id: int
    block_elements: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Format:
    """One storage format: blocks of `block_elements` consecutive weights of a row in `block_bytes` bytes.

    Attributes:
        name: GGUF's name, upper case: ``"Q4_K"``.
        id: GGUF's type number.
        block_elements: weights in a block; a row is a whole number of blocks.
        block_bytes: bytes of a block.
        decode_blocks: uint8 (n, block_bytes) -> float32 (n, block_elements), exactly as ggml defines it.
        encode_blocks: float32 (n, block_elements) -> uint8 (n, block_bytes), or None.
        wide_fields: (offset, bytes) of every number of several bytes inside a block; they are little-endian.
    """

    name: str
    id: int
    block_elements: int
    block_bytes: int
    decode_blocks: Callable[[Bytes], Floats]
    encode_blocks: Callable[[Floats], Bytes] | None = None
    wide_fields: tuple[tuple[int, int], ...] = ()

    def num_bytes(self, num_elements: int) -> int:
        """Bytes that `num_elements` weights take; they must be a whole number of blocks."""
        if num_elements % self.block_elements:
            raise ValueError(
                f"{self.name} has blocks of {self.block_elements} weights, {num_elements} do not fit"
            )
        return num_elements // self.block_elements * self.block_bytes

    def decode(self, raw: Bytes) -> Floats:
        """Stored bytes (..., row bytes) -> weights (..., row elements). Raises ValueError on a partial block.

        >>> by_name("F16").decode(np.array([0x00, 0x3C], np.uint8))
        array([1.], dtype=float32)
        """
        blocks: Bytes = _whole_blocks(raw, np.uint8, self.block_bytes)
        values: Floats = np.empty((len(blocks), self.block_elements), np.float32)
        _by_chunks(self.decode_blocks, blocks, values, self.block_elements)
        return values.reshape(*raw.shape[:-1], raw.shape[-1] // self.block_bytes * self.block_elements)

    def encode(self, values: npt.NDArray[np.floating]) -> Bytes:
        """Weights (..., row elements) -> stored bytes (..., row bytes).

        Deterministic, round to nearest. Raises ValueError when a row is not a whole number of blocks and
        UnsupportedError when the format has no encoder.
        """
        if self.encode_blocks is None:
            raise UnsupportedError(f"torchless reads {self.name} but cannot write it yet")
        blocks: Floats = _whole_blocks(np.asarray(values, np.float32), np.float32, self.block_elements)
        raw: Bytes = np.empty((len(blocks), self.block_bytes), np.uint8)
        _by_chunks(self.encode_blocks, blocks, raw, self.block_elements)
        return raw.reshape(*values.shape[:-1], values.shape[-1] // self.block_elements * self.block_bytes)

    def byteswapped(self, raw: Bytes) -> Bytes:
        """A copy of stored bytes with the bytes of every wide field reversed (big-endian files)."""
        blocks: Bytes = np.array(raw).reshape(-1, self.block_bytes)
        for offset, size in self.wide_fields:
            blocks[:, offset : offset + size] = blocks[:, offset : offset + size][:, ::-1].copy()
        return blocks.reshape(raw.shape)


def by_name(name: str) -> Format:
    """The format called `name` (``"Q4_K"``). Raises UnsupportedError for any other name.

    >>> by_name("Q4_K").block_bytes
    144
    """
    found = all_formats().get(name)
    if found is None:
        raise UnsupportedError(
            f"tensor type {name!r} is not supported; torchless runs {', '.join(all_formats())}: "
            f"get the model in one of these types"
        )
    return found


def by_id(type_id: int) -> Format:
    """The format with GGUF type number `type_id`. Raises UnsupportedError naming any other type."""
    known = stored_type(type_id)
    return by_name(known.name if known is not None else f"GGUF type {type_id}")


@cache
def all_formats() -> Mapping[str, Format]:
    """All formats of this folder by name, ordered by type number."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            found.append(importlib.import_module(f"{__name__}.{module.name}").FORMAT)
    return MappingProxyType({item.name: item for item in sorted(found, key=lambda item: item.id)})


@cache
def stored_type(key: int | str) -> StoredType | None:
    """Name and sizes of a GGUF type by number or name, whether torchless runs it or not; None if unknown."""
    for item in all_formats().values():
        if key in (item.id, item.name):
            return StoredType(item.name, item.id, item.block_elements, item.block_bytes)
    return next((item for item in _OTHER_TYPES if key in (item.id, item.name)), None)


def ratio(numerator: Floats | np.float32, denominator: Floats) -> Floats:
    """Elementwise quotient, 0 where the denominator is 0: for encoders, whose scales may be 0."""
    result: Floats = np.zeros(np.broadcast_shapes(np.shape(numerator), denominator.shape), np.float32)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def _whole_blocks(rows: npt.NDArray[Any], dtype: type[np.generic], width: int) -> npt.NDArray[Any]:
    """Rows (..., n * width) as blocks (m, width)."""
    if rows.dtype != dtype or rows.ndim == 0:
        raise ValueError(f"expected an array of {np.dtype(dtype)}, got {rows.dtype} with shape {rows.shape}")
    if rows.shape[-1] % width:
        raise ValueError(f"a row of {rows.shape[-1]} is not a whole number of blocks of {width}")
    return np.ascontiguousarray(rows).reshape(-1, width)


def _by_chunks(
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    source: npt.NDArray[Any],
    result: npt.NDArray[Any],
    block_elements: int,
) -> None:
    """Applies a block function to some hundred thousand weights at a time, so that temporaries stay small."""
    step = max(1, _CHUNK_WEIGHTS // block_elements)
    with np.errstate(all="ignore"):  # Scales may be infinite or NaN in a broken file: the result says so.
        for start in range(0, len(source), step):
            result[start : start + step] = function(source[start : start + step])


_OTHER_TYPES = (
    StoredType("Q8_1", 9, 32, 36),
    StoredType("Q8_K", 15, 256, 292),
)
"""GGUF's types that have no file here: ggml's own intermediate results. Numbers not listed were never given out."""
