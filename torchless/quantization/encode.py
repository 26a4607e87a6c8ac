"""One tensor from a file to blocks of another type, in slices of rows, by the native quantisers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless._core import has_quantiser, quantise_rows
from torchless.errors import FormatError, UnsupportedError
from torchless.quants import Bytes, Floats
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["PLAIN_TYPES", "check_writable", "encode_rows", "encode_tensor", "row_slices"]

PLAIN_TYPES = ("F32", "F16", "BF16")
"""Types that the native quantisers read as they are; others are decoded first."""

_SLICE_WEIGHTS_PER_THREAD, _MOST_SLICE_WEIGHTS = 1 << 20, 1 << 24
"""A slice is enough for all threads and small beside a model. With few threads it is also small enough that the
allocator hands out the same memory again (glibc up to 32 MiB): new pages would cost as much as the work itself."""
_COPIED_BYTES = 1 << 26
"""At a time, of a tensor that stays as it is."""


def check_writable(type_name: str) -> None:
    """Raises UnsupportedError for a type that torchless cannot quantise to."""
    stored = quants.stored_type(type_name)
    if stored is None:
        raise UnsupportedError(f"{type_name!r} is not a type of GGUF files")
    if not has_quantiser(stored.id):
        raise UnsupportedError(f"torchless cannot quantise to {type_name}")


def row_slices(info: TensorInfo, threads: int, num_parts: int = 1) -> Iterator[tuple[int, int, int]]:
    """(first row, end row, part) of each slice of a tensor; a slice lies within one of `num_parts` parts."""
    rows = math.prod(info.shape[:-1])
    weights = min(threads * _SLICE_WEIGHTS_PER_THREAD, _MOST_SLICE_WEIGHTS)
    step = max(1, weights // max(info.shape[-1], 1))
    per_part = rows // num_parts
    for part in range(num_parts):
        for begin in range(part * per_part, (part + 1) * per_part, step):
            yield begin, min(begin + step, (part + 1) * per_part), part


def encode_tensor(
    source: WeightSource, info: TensorInfo, type_name: str, importance: Floats | None, threads: int
) -> Iterator[Bytes]:
    """Yields the bytes of a tensor stored as `type_name`, slice by slice.

    Args:
        importance: a weight per column (columns,), or per part and column (parts, columns) where the tensor
            holds as many matrices; None: all alike.

    Raises:
        FormatError: a weight is not finite; names the tensor.
    """
    if type_name == info.type:
        yield from _copied(source, info)
        return
    parts = 1 if importance is None or importance.ndim == 1 else len(importance)
    for begin, end, part in row_slices(info, threads, parts):
        column_weights = importance if importance is None or importance.ndim == 1 else importance[part]
        rows = _rows(source, info, begin, end)
        try:
            yield encode_rows(rows, info.type, type_name, column_weights, threads)
        except ValueError as error:
            raise FormatError(f"{source.path}: tensor {info.name!r}, rows from {begin} on: {error}") from None
        _drop(source, info, begin, end)


def encode_rows(
    rows: Bytes, stored: str, type_name: str, importance: Floats | None = None, threads: int = 1
) -> Bytes:
    """Rows as stored (rows, row bytes) -> rows of `type_name`. Raises ValueError where that cannot be."""
    if stored not in PLAIN_TYPES:
        values: npt.NDArray[np.float32] = quants.by_name(stored).decode(rows)
        rows, stored = values.view(np.uint8), "F32"
    if type_name == stored:
        return rows
    wanted = quants.stored_type(type_name)
    assert wanted is not None, type_name
    return quantise_rows(rows, stored, wanted.id, importance, threads)


def _rows(source: WeightSource, info: TensorInfo, begin: int, end: int) -> Bytes:
    row_bytes = info.num_bytes // math.prod(info.shape[:-1])
    raw = source.raw(info.name)[begin * row_bytes : end * row_bytes]
    return raw.reshape(end - begin, row_bytes)


def _copied(source: WeightSource, info: TensorInfo) -> Iterator[Bytes]:
    raw = source.raw(info.name)
    for begin in range(0, raw.size, _COPIED_BYTES):
        yield raw[begin : begin + _COPIED_BYTES]
        source.drop_pages(info.name, begin, min(_COPIED_BYTES, raw.size - begin))


def _drop(source: WeightSource, info: TensorInfo, begin: int, end: int) -> None:
    row_bytes = info.num_bytes // math.prod(info.shape[:-1])
    source.drop_pages(info.name, begin * row_bytes, (end - begin) * row_bytes)
