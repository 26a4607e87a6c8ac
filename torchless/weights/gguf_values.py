"""Metadata values of GGUF files: the thirteen types, and arrays that stay in the file until they are read."""

from __future__ import annotations

import struct
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from mmap import mmap
from typing import Any

import numpy.typing as npt

__all__ = [
    "NUMBER_CODES",
    "GgufArray",
    "NestedArray",
    "NumberArray",
    "StringArray",
    "ValueType",
    "scan_strings",
]


class ValueType(IntEnum):
    """The type number that stands before every metadata value."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


NUMBER_CODES = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "B",  # One byte, 0 or 1.
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""Letter by which the struct module knows each fixed-size type (with "<" or ">" before it)."""


class GgufArray(Sequence[Any]):
    """An array of a file's metadata: behaves as a read-only list, equal to a list of the same elements.

    Attributes:
        element_type: type of the elements.
    """

    __slots__ = ("element_type",)

    def __init__(self, element_type: ValueType) -> None:
        self.element_type = element_type

    def __getitem__(self, index: Any) -> Any:
        """One element, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self._element(i) for i in range(*index.indices(len(self)))]
        position = int(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} of an array of {len(self)}")
        return self._element(position)

    @abstractmethod
    def _element(self, index: int) -> Any:
        """The element at `index`, which is in range."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | tuple | GgufArray):
            return NotImplemented
        return len(other) == len(self) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # Compares by value with lists, which have no hash either.

    def __repr__(self) -> str:
        head = ", ".join(repr(item) for item in self[:4])
        more = f", ... {len(self)} in all" if len(self) > 4 else ""
        return f"[{head}{more}]"


class NumberArray(GgufArray):
    """Numbers or booleans."""

    __slots__ = ("_numbers",)

    def __init__(self, element_type: ValueType, numbers: npt.NDArray[Any]) -> None:
        super().__init__(element_type)
        self._numbers = numbers

    def numpy(self) -> npt.NDArray[Any]:
        """All elements as a new array in this machine's byte order (booleans as bool)."""
        if self.element_type == ValueType.BOOL:
            booleans: npt.NDArray[Any] = self._numbers != 0
            return booleans
        return self._numbers.astype(self._numbers.dtype.newbyteorder("="))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.numpy().astype(dtype, copy=False) if dtype is not None else self.numpy()

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.numpy().tolist())

    def _element(self, index: int) -> Any:
        value = self._numbers[index].item()
        return bool(value) if self.element_type == ValueType.BOOL else value


class StringArray(GgufArray):
    """Strings, decoded one by one as they are read.

    Bytes that are not valid UTF-8 become lone surrogates: ``text.encode("utf-8", "surrogateescape")`` gives
    the exact bytes of the file.
    """

    __slots__ = ("_data", "_offsets")

    def __init__(self, data: mmap, offsets: array[int]) -> None:
        """`offsets[i]` is where string i starts (with its 8-byte length); one more marks the end."""
        super().__init__(ValueType.STRING)
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        data, offsets = self._data, iter(self._offsets)
        start = next(offsets)
        for end in offsets:
            yield data[start + 8 : end].decode("utf-8", "surrogateescape")
            start = end

    def _element(self, index: int) -> str:
        start, end = self._offsets[index], self._offsets[index + 1]
        return self._data[start + 8 : end].decode("utf-8", "surrogateescape")


class NestedArray(GgufArray):
    """Arrays of arrays; an inner array is built when it is read."""

    __slots__ = ("_offsets", "_read")

    def __init__(self, offsets: array[int], read: Callable[[int], GgufArray]) -> None:
        """`read(offset)` builds the inner array whose type number stands at `offset`."""
        super().__init__(ValueType.ARRAY)
        self._offsets = offsets
        self._read = read

    def __len__(self) -> int:
        return len(self._offsets)

    def _element(self, index: int) -> GgufArray:
        return self._read(self._offsets[index])


def scan_strings(data: mmap, position: int, count: int, order: str) -> array[int]:
    """Where each of `count` strings starts, and the end of the last one.

    The caller has checked that the file has `8 * count` bytes left. Raises ValueError with the number of the
    first string that reaches past the end of the file.
    """
    offsets = array("q", bytes(8 * (count + 1)))
    read_length = struct.Struct(order + "Q").unpack_from
    index = 0
    try:
        for index in range(count):
            offsets[index] = position
            position += 8 + read_length(data, position)[0]
        offsets[count] = position
    except (struct.error, OverflowError):
        raise ValueError(max(index - 1, 0)) from None
    if position > len(data):
        raise ValueError(count - 1)
    return offsets
