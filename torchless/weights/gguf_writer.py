"""Writes GGUF version 3 files, little-endian, tensor data streamed from iterators."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from torchless.errors import InvalidRequestError
from torchless.quants import Bytes, stored_type
from torchless.weights.gguf_values import NUMBER_CODES, GgufArray, NumberArray, ValueType
from torchless.weights.write_behind import WriteBehind

__all__ = ["TensorData", "TypedValue", "write_gguf"]

TensorData: TypeAlias = tuple[str, tuple[int, ...], str, "Iterable[Bytes] | Bytes"]
"""Name, shape (rows first), type (``"Q4_K"``), and the stored bytes: one array or an iterable of chunks."""


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A metadata value with its GGUF type spelled out, for where the default of `write_gguf` is wrong.

    Attributes:
        type: type of the value, or of the elements where `value` is a list.
        value: a number, boolean or string, or a list of them.
    """

    type: ValueType
    value: Any


def write_gguf(path: str | Path, metadata: Mapping[str, Any], tensors: Iterable[TensorData]) -> None:
    """Writes a GGUF file; it appears under its name only when it is complete.

    The types of metadata values are those that other programs expect: integers are uint32 (int32 if
    negative, 64 bits if larger), floats float32, lists of integers int32. NumPy scalars and arrays keep their
    type, arrays of a `GgufSource` theirs, and `TypedValue` states any type. Strings may hold lone
    surrogates that stand for bytes which are not UTF-8.

    Args:
        path: the file to write; an existing one is replaced, folders that are missing are made.
        metadata: written in this order. ``general.alignment`` sets the alignment of tensors (32 if absent).
        tensors: names, shapes and types are read first for all tensors, then the data of one at a time. A chunk is
            written while the next one is asked for, so it must not change.

    Raises:
        InvalidRequestError: a value, name, shape or type that GGUF cannot hold, or data of the wrong size.
        OSError: the file cannot be written. Nothing is left behind.

    Example:
        >>> import tempfile
        >>> from torchless.weights.gguf import GgufSource
        >>> file = Path(tempfile.mkdtemp()) / "example.gguf"
        >>> write_gguf(file, {"general.name": "x"}, [("a", (1, 2), "F32", np.zeros(8, np.uint8))])
        >>> GgufSource(file).tensors["a"].shape
        (1, 2)
    """
    path = Path(path)
    listed = list(tensors)
    alignment = metadata.get("general.alignment", 32)
    alignment = int(alignment.value if isinstance(alignment, TypedValue) else alignment)
    if alignment <= 0 or alignment & (alignment - 1):
        raise InvalidRequestError(f"general.alignment: {alignment} is not a power of two")
    header, sizes = _header(metadata, listed, alignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file, WriteBehind(file) as out:
            out.write(header + bytes(-len(header) % alignment))
            for (name, _, _, data), size in zip(listed, sizes, strict=True):
                _write_data(out, name, data, size)
                out.write(bytes(-size % alignment))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _header(
    metadata: Mapping[str, Any], tensors: Sequence[TensorData], alignment: int
) -> tuple[bytes, list[int]]:
    """Everything before the tensor data, and the bytes of each tensor."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        if not key:
            raise InvalidRequestError("a metadata key is empty")
        out += _string(key) + _tagged(key, value)
    sizes: list[int] = []
    names: set[str] = set()
    offset = 0
    for name, shape, type_name, _ in tensors:
        stored = stored_type(type_name)
        if stored is None:
            raise InvalidRequestError(f"tensor {name!r}: {type_name!r} is not a GGUF type")
        if name in names or not 0 < len(name.encode("utf-8", "surrogateescape")) < 64:
            raise InvalidRequestError(f"tensor {name!r}: names are unique and of 1 to 63 bytes")
        if len(shape) > 4 or min(shape, default=1) < 0 or (shape or (1,))[-1] % stored.block_elements:
            raise InvalidRequestError(
                f"tensor {name!r}: shape {shape} needs at most 4 dimensions and rows of whole blocks "
                f"of {stored.block_elements} ({type_name})"
            )
        names.add(name)
        dims = tuple(reversed(shape))
        out += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, stored.id, offset)
        sizes.append(math.prod(shape) // stored.block_elements * stored.block_bytes)
        offset += -(-sizes[-1] // alignment) * alignment
    return bytes(out), sizes


def _write_data(out: WriteBehind, name: str, data: Iterable[Bytes] | Bytes, size: int) -> None:
    written = 0
    for chunk in [data] if isinstance(data, np.ndarray) else data:
        raw = np.ascontiguousarray(chunk)
        written += raw.nbytes
        if written > size:
            break
        out.write(raw)
    if written != size:
        raise InvalidRequestError(f"tensor {name!r}: got {written} bytes of data, its shape takes {size}")


def _string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _tagged(key: str, value: Any) -> bytes:
    """A value with its type number before it."""
    kind = None
    if isinstance(value, TypedValue):
        kind, value = value.type, value.value
    if isinstance(value, GgufArray | np.ndarray | list | tuple):
        return struct.pack("<I", ValueType.ARRAY) + _array(key, value, kind)
    kind = _scalar_type(key, value) if kind is None else kind
    return struct.pack("<I", kind) + _elements(key, kind, [value])


def _array(key: str, values: Any, kind: ValueType | None) -> bytes:
    """Element type, count and elements."""
    if kind is None:
        kind = _element_type(key, values)
    head = struct.pack("<IQ", kind, len(values))
    if kind == ValueType.ARRAY:
        return head + b"".join(_array(key, inner, None) for inner in values)
    return head + _elements(key, kind, values)


def _elements(key: str, kind: ValueType, values: Any) -> bytes:
    try:
        if kind == ValueType.STRING:
            return b"".join(_string(value) for value in values)
        if isinstance(values, np.ndarray | NumberArray):
            dtype = np.dtype(NUMBER_CODES[kind]).newbyteorder("<")
            return np.asarray(values).astype(dtype, casting="same_kind").tobytes()
        return struct.pack(f"<{len(values)}{NUMBER_CODES[kind]}", *values)
    except (struct.error, TypeError, AttributeError, UnicodeEncodeError, OverflowError, KeyError) as error:
        raise InvalidRequestError(f"metadata {key!r}: not {kind.name.lower()}: {error}") from None


def _element_type(key: str, values: Any) -> ValueType:
    if isinstance(values, GgufArray):
        return values.element_type
    if isinstance(values, np.ndarray):
        if values.ndim == 1:
            return _numpy_type(key, values.dtype)
        return ValueType.ARRAY
    kinds = {_scalar_type(key, value, in_array=True) for value in values}
    if kinds == {ValueType.INT32, ValueType.INT64}:
        return ValueType.INT64
    if kinds and kinds <= {ValueType.INT32, ValueType.INT64, ValueType.FLOAT32}:
        return ValueType.FLOAT32 if ValueType.FLOAT32 in kinds else kinds.pop()
    if len(kinds) != 1:
        found = ", ".join(sorted(kind.name.lower() for kind in kinds)) or "nothing"
        raise InvalidRequestError(f"metadata {key!r}: a list needs elements of one type, found {found}")
    return kinds.pop()


def _scalar_type(key: str, value: Any, *, in_array: bool = False) -> ValueType:
    if isinstance(value, np.generic):
        return _numpy_type(key, value.dtype)
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        if value < 0 or in_array:
            return ValueType.INT32 if -(2**31) <= value < 2**31 else ValueType.INT64
        return ValueType.UINT32 if value < 2**32 else ValueType.UINT64
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, str | bytes):
        return ValueType.STRING
    if isinstance(value, list | tuple | np.ndarray | GgufArray):
        return ValueType.ARRAY
    raise InvalidRequestError(f"metadata {key!r}: GGUF has no type for {type(value).__name__}")


def _numpy_type(key: str, dtype: np.dtype[Any]) -> ValueType:
    if dtype == np.bool_:
        return ValueType.BOOL
    for kind, code in NUMBER_CODES.items():
        if kind != ValueType.BOOL and dtype == np.dtype(code):
            return kind
    raise InvalidRequestError(f"metadata {key!r}: GGUF has no type for arrays of {dtype}")
