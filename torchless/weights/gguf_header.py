"""Reads and checks the header of one GGUF file: metadata and the list of tensors.

The file is hostile until checked: every count, length and offset is compared with the bytes that are left
before it is used. The format is described in ggml's docs/gguf.md; where it leaves something open, this
reader is as strict as ggml itself (names under 64 bytes, at most 4 dimensions, data without gaps).
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from torchless.errors import FormatError
from torchless.quants import stored_type
from torchless.weights.gguf_values import (
    NUMBER_CODES,
    GgufArray,
    NestedArray,
    NumberArray,
    StringArray,
    ValueType,
    scan_strings,
)
from torchless.weights.source import TensorInfo

__all__ = ["GgufHeader", "read_header"]

_VERSIONS = (2, 3)  # The same layout; version 3 added big-endian files. Version 1 had 32-bit counts.
_DEFAULT_ALIGNMENT = 32
# Limits far above any real file, since Python objects take more memory than the bytes that they stand for.
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_KEY_BYTES = 65535
_MAX_TEXT_BYTES = 1 << 27
_MAX_NAME_BYTES = 63
_MAX_DIMS = 4
_MAX_DEPTH = 8
_LAST_TYPE = max(ValueType).value
_INT64 = 1 << 63
_MIN_KEY_VALUE_BYTES = 8 + 1 + 4 + 1  # Length, one letter, type, one byte.
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # Empty name, no dimensions, type, offset.


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says before its tensor data.

    Attributes:
        version: 2 or 3.
        big_endian: numbers are stored most significant byte first.
        metadata: keys and values in file order.
        value_types: type number of each value (ARRAY for arrays, which know their element type).
        tensors: in file order.
        offsets: where each tensor's data starts in the file.
        data_missing: the file ends where the tensor data should begin.
    """

    version: int
    big_endian: bool
    metadata: dict[str, Any]
    value_types: dict[str, ValueType]
    tensors: dict[str, TensorInfo]
    offsets: dict[str, int]
    data_missing: bool


def read_header(path: Path, data: mmap) -> GgufHeader:
    """Parses the header in `data`, the memory map of the whole file.

    Raises:
        FormatError: names the file, the field, what was found and what was expected.
    """
    reader = _Reader(path, data)
    version = reader.start()
    num_tensors = reader.count("the tensor count", _MIN_TENSOR_BYTES, _MAX_TENSORS)
    num_keys = reader.count("the metadata count", _MIN_KEY_VALUE_BYTES, _MAX_KEYS)
    metadata, types = _read_metadata(reader, num_keys)
    alignment = _alignment(reader, metadata, types)
    tensors: dict[str, TensorInfo] = {}
    relative: dict[str, int] = {}
    for index in range(num_tensors):
        info, offset = _read_tensor(reader, index)
        if info.name in tensors:
            reader.fail(f"tensor {index}", f"the name {info.name!r} was already used by another tensor")
        tensors[info.name] = info
        relative[info.name] = offset
    start = _padded(reader.position, alignment)
    missing = _check_data(reader, tensors, relative, start, alignment)
    offsets = {name: start + offset for name, offset in relative.items()}
    return GgufHeader(version, reader.order == ">", metadata, types, tensors, offsets, missing)


def _read_metadata(reader: _Reader, count: int) -> tuple[dict[str, Any], dict[str, ValueType]]:
    metadata: dict[str, Any] = {}
    types: dict[str, ValueType] = {}
    for index in range(count):
        key = reader.text(f"metadata key {index}", _MAX_KEY_BYTES)
        if not key:
            reader.fail(f"metadata key {index}", "the key is empty")
        if key in metadata:
            reader.fail(f"metadata key {index}", f"the key {key!r} appears twice")
        types[key] = reader.value_type(key)
        metadata[key] = reader.value(types[key], key)
    return metadata, types


def _alignment(reader: _Reader, metadata: dict[str, Any], types: dict[str, ValueType]) -> int:
    key = "general.alignment"
    if key not in metadata:
        return _DEFAULT_ALIGNMENT
    if types[key] != ValueType.UINT32:
        reader.fail(key, f"the type is {types[key].name.lower()}, expected uint32")
    value: int = metadata[key]
    if value == 0 or value & (value - 1):
        reader.fail(key, f"{value} is not a power of two")
    return value


def _read_tensor(reader: _Reader, index: int) -> tuple[TensorInfo, int]:
    """One entry of the tensor list, and where its data starts relative to the data section."""
    name = reader.text(f"the name of tensor {index}", _MAX_NAME_BYTES)
    field = f"tensor {name!r}"
    num_dims = reader.number("I", f"{field}, number of dimensions")
    if num_dims > _MAX_DIMS:
        reader.fail(f"{field}, number of dimensions", f"found {num_dims}, expected at most {_MAX_DIMS}")
    dims = [reader.number("Q", f"{field}, dimension {axis}") for axis in range(num_dims)]
    num_elements = 1
    for axis, size in enumerate(dims):
        num_elements *= size
        if size >= _INT64 or num_elements >= _INT64:
            reader.fail(f"{field}, dimension {axis}", f"the shape {dims} has 2^63 elements or more")
    type_id = reader.number("I", f"{field}, type")
    stored = stored_type(type_id)
    if stored is None:
        reader.fail(f"{field}, type", f"{type_id} is not a type number that GGUF defines")
    row = dims[0] if dims else 1
    if row % stored.block_elements:
        problem = f"a row has {row} elements, expected a multiple of {stored.block_elements} ({stored.name})"
        reader.fail(f"{field}, shape", problem)
    num_bytes = num_elements // stored.block_elements * stored.block_bytes
    if num_bytes >= _INT64:
        reader.fail(f"{field}, shape", f"the shape {dims} takes 2^63 bytes or more")
    offset = reader.number("Q", f"{field}, offset")
    return TensorInfo(name, tuple(reversed(dims)), stored.name, num_bytes), offset


def _check_data(
    reader: _Reader, tensors: dict[str, TensorInfo], offsets: dict[str, int], start: int, alignment: int
) -> bool:
    """Checks that the tensors lie one after another inside the file. True if the whole data is missing.

    A file that stops exactly where the data would begin is a header of its own, which may be listed.
    """
    size = len(reader.data)
    expected, end = 0, start
    if tensors and start > size:
        reader.fail("the tensor data", f"it starts at byte {start} but the file has {size}: it is cut off")
    for name, info in tensors.items():
        if offsets[name] != expected:
            problem = f"found {offsets[name]}, expected {expected} (right after the tensor before it, padded)"
            reader.fail(f"tensor {name!r}, offset", problem)
        end = start + expected + info.num_bytes
        if end > size and size != start:
            problem = f"it ends at byte {end} but the file has {size}: the file is cut off, get it again"
            reader.fail(f"tensor {name!r}, data", problem)
        expected = _padded(expected + info.num_bytes, alignment)
    # Some writers leave the padding of the last tensor out; a part of it means that something was cut off.
    if end < size < start + expected:
        reader.fail(
            "the tensor data", f"the file has {size} bytes, expected {start + expected}: it is cut off"
        )
    return size == start and expected > 0


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


class _Reader:
    """A position in the header; every read is checked against the end of the file."""

    __slots__ = ("data", "order", "path", "position")

    def __init__(self, path: Path, data: mmap) -> None:
        self.path = path
        self.data = data
        self.position = 0
        self.order = "<"

    def fail(self, field: str, problem: str) -> NoReturn:
        raise FormatError(f"{self.path}: not a valid GGUF file: {field}: {problem}")

    def start(self) -> int:
        """Reads magic and version; the version's byte order is the file's."""
        magic = self.data[:4]
        if magic != b"GGUF":
            self.fail("magic", f"the file starts with {magic!r}, expected b'GGUF'")
        self.position = 4
        raw = self.data[4:8]
        little, big = int.from_bytes(raw, "little"), int.from_bytes(raw, "big")
        if len(raw) < 4:
            self.fail("version", f"the file ends after {len(self.data)} bytes")
        self.position = 8
        if little in _VERSIONS:
            return little
        if big in _VERSIONS:
            self.order = ">"
            return big
        found = min(little, big)
        advice = "convert the model again with a current tool" if found == 1 else "expected 2 or 3"
        return self.fail("version", f"found {found}; {advice}")

    def count(self, field: str, min_bytes: int, limit: int) -> int:
        """A 64-bit count of items that take at least `min_bytes` each."""
        value: int = self.number("Q", field)
        left = len(self.data) - self.position
        if value > limit or value * min_bytes > left:
            most = min(limit, left // min_bytes)
            self.fail(field, f"found {value}, expected at most {most} with {left} bytes left in the file")
        return value

    def number(self, code: str, field: str) -> Any:
        """A number of struct type `code`."""
        size = struct.calcsize("<" + code)
        if self.position > len(self.data) - size:
            self.fail(field, f"the file ends at byte {len(self.data)}, inside or before this field")
        (value,) = struct.unpack_from(self.order + code, self.data, self.position)
        self.position += size
        return value

    def text(self, field: str, max_bytes: int) -> str:
        """A string; bytes that are not UTF-8 become lone surrogates."""
        length = self.number("Q", field)
        left = len(self.data) - self.position
        if length > min(left, max_bytes):
            what = f"at most {max_bytes} are allowed" if length > max_bytes else f"the file has {left} left"
            self.fail(field, f"the length is {length} bytes but {what}")
        raw = self.data[self.position : self.position + length]
        self.position += length
        return raw.decode("utf-8", "surrogateescape")

    def value_type(self, key: str) -> ValueType:
        number = self.number("I", f"{key!r}, value type")
        if number > _LAST_TYPE:
            self.fail(f"{key!r}, value type", f"found {number}, expected 0 to {_LAST_TYPE}")
        return ValueType(number)

    def value(self, kind: ValueType, key: str) -> Any:
        if kind == ValueType.ARRAY:
            return self.read_array(key, depth=1)
        if kind == ValueType.STRING:
            return self.text(f"{key!r}", _MAX_TEXT_BYTES)
        value = self.number(NUMBER_CODES[kind], f"{key!r}")
        return value != 0 if kind == ValueType.BOOL else value

    def read_array(self, key: str, depth: int) -> GgufArray:
        """An array: element type, count, elements. Numbers and strings stay in the file."""
        if depth > _MAX_DEPTH:
            self.fail(f"{key!r}", f"arrays are nested more than {_MAX_DEPTH} deep")
        kind = self.value_type(key)
        field = f"{key!r}, number of elements"
        if kind == ValueType.ARRAY:
            return self.read_nested_array(key, self.count(field, 12, _INT64), depth)
        if kind == ValueType.STRING:
            return self.read_string_array(key, self.count(field, 8, _INT64))
        dtype = np.dtype(NUMBER_CODES[kind]).newbyteorder("<" if self.order == "<" else ">")
        count = self.count(field, dtype.itemsize, _INT64)
        numbers = np.frombuffer(self.data, dtype, count, self.position) if count else np.empty(0, dtype)
        self.position += count * dtype.itemsize
        return NumberArray(kind, numbers)

    def read_string_array(self, key: str, count: int) -> StringArray:
        try:
            offsets = scan_strings(self.data, self.position, count, self.order)
        except ValueError as error:
            self.fail(f"{key!r}, string {error}", "its length reaches past the end of the file")
        self.position = offsets[count]
        return StringArray(self.data, offsets)

    def read_nested_array(self, key: str, count: int, depth: int) -> NestedArray:
        offsets = array("q", bytes(8 * count))
        for index in range(count):
            offsets[index] = self.position
            self.read_array(key, depth + 1)

        def read(offset: int) -> GgufArray:
            again = _Reader(self.path, self.data)
            again.order, again.position = self.order, offset
            return again.read_array(key, depth + 1)

        return NestedArray(offsets, read)
