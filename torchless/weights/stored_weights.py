"""The weights behind the tensors of safetensors files: mapped as they are, or decoded when they are asked for.

A weight knows its tensor's canonical name, shape and type. `raw` gives the bytes of all of it: a view of the file, or
a copy made in slices of rows, so that only the result takes memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from torchless import quants
from torchless.errors import FormatError
from torchless.quants import Bytes, Floats
from torchless.weights.mapped_file import MappedFile
from torchless.weights.pieces import FilePiece
from torchless.weights.source import TensorInfo

__all__ = [
    "DECODED",
    "PLAIN",
    "SCALED",
    "DecodedWeight",
    "FileTensor",
    "LastCopy",
    "MappedWeight",
    "StoredTensor",
    "StoredWeight",
    "decoded_weight",
    "scaled_weight",
]

PLAIN = ("F32", "F16", "BF16")
"""Types that are run as they are stored."""

_FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
"""8-bit floats by their names in ml_dtypes, which is imported only where a model has them."""

_NUMBERS = {"F64": "<f8", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4",
            "I64": "<i8", "U64": "<u8", "BOOL": "?"}  # fmt: skip
DECODED = (*_FLOAT8, *_NUMBERS)
"""Types that are turned into floats of more bits when they are read."""

SCALED = (*_FLOAT8, "I8")
"""Types of one byte that may have scales beside them."""

_SLICE_WEIGHTS = 1 << 22


class StoredTensor(NamedTuple):
    """One entry of a file's header; `offset` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


class FileTensor(NamedTuple):
    """A tensor under its Hugging Face name in its file."""

    name: str
    file: MappedFile
    stored: StoredTensor

    def view(self) -> Bytes:
        """Its bytes, zero-copy."""
        return self.file.view(self.stored.offset, self.stored.num_bytes)

    def drop_pages(self) -> None:
        """Lets the pages behind it go."""
        self.file.drop_pages(self.stored.offset, self.stored.num_bytes)

    def floats(self) -> Floats:
        """Its values as float32, for small tensors. Raises FormatError for other types."""
        if self.stored.dtype not in PLAIN:
            raise FormatError(
                f"{self.file.path}: tensor {self.name!r} has the type {self.stored.dtype}, expected F32, F16 "
                f"or BF16"
            )
        return quants.by_name(self.stored.dtype).decode(self.view()).reshape(self.stored.shape)


class StoredWeight(Protocol):
    """What `SafetensorsSource` keeps for a tensor."""

    @property
    def info(self) -> TensorInfo:
        """The tensor as the rest of torchless sees it."""
        ...

    @property
    def origin(self) -> FileTensor:
        """Where it comes from (its main part)."""
        ...

    @property
    def is_view(self) -> bool:
        """Whether `raw` gives a view of the file rather than a copy."""
        ...

    def raw(self) -> Bytes:
        """All bytes of the tensor, read-only."""
        ...

    def pieces(self) -> tuple[FilePiece, ...]:
        """Where these bytes lie, in order; nothing where the file has others."""
        ...


class MappedWeight(NamedTuple):
    """Used as it is stored."""

    info: TensorInfo
    origin: FileTensor
    is_view: bool = True

    def raw(self) -> Bytes:
        """A view of the file."""
        return self.origin.view()

    def pieces(self) -> tuple[FilePiece, ...]:
        """All of the tensor in the file."""
        return (FilePiece(self.origin.file, self.origin.stored.offset, self.origin.stored.num_bytes),)


class DecodedWeight(NamedTuple):
    """Computed from what is stored; `encode_rows(begin, end)` gives the bytes of some rows."""

    info: TensorInfo
    origin: FileTensor
    encode_rows: Callable[[int, int], Bytes]
    is_view: bool = False

    def raw(self) -> Bytes:
        """A copy, made slice by slice."""
        rows = math.prod(self.info.shape[:-1])
        result: Bytes = np.empty((rows, self.info.num_bytes // max(rows, 1)), np.uint8)
        step = max(1, _SLICE_WEIGHTS // max(self.info.shape[-1] if self.info.shape else 1, 1))
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            result[begin:end] = self.encode_rows(begin, end).reshape(end - begin, -1)
        self.origin.drop_pages()
        result.flags.writeable = False
        return result.reshape(-1)

    def pieces(self) -> tuple[FilePiece, ...]:
        """None."""
        return ()


class LastCopy:
    """Keeps the copy that was asked for last, since readers come back for slice after slice of one tensor."""

    __slots__ = ("_name", "_raw")

    def __init__(self) -> None:
        self._name: str | None = None
        self._raw: Bytes | None = None

    def get(self, name: str, make: Callable[[], Bytes]) -> Bytes:
        """The copy of a tensor; another one's is forgotten before it is made."""
        if self._name != name or self._raw is None:
            self._name = self._raw = None
            raw = make()
            self._name, self._raw = name, raw
        return self._raw

    def drop(self, name: str, end: int | None = None) -> None:
        """Forgets a tensor's copy once its reader has come to the end (None: in any case)."""
        if name == self._name and self._raw is not None and (end is None or end >= self._raw.size):
            self._name = self._raw = None


def decoded_weight(name: str, tensor: FileTensor) -> DecodedWeight:
    """Whole numbers and F64 as F32."""
    dtype = np.dtype(_NUMBERS[tensor.stored.dtype])

    def rows(begin: int, end: int) -> Bytes:
        values = tensor.view().view(dtype).reshape(math.prod(tensor.stored.shape[:-1]), -1)[begin:end]
        return np.ascontiguousarray(values.astype("<f4")).view(np.uint8)

    num_bytes = 4 * math.prod(tensor.stored.shape)
    return DecodedWeight(TensorInfo(name, tensor.stored.shape, "F32", num_bytes), tensor, rows)


def scaled_weight(
    name: str, tensor: FileTensor, scale: FileTensor | None, block: tuple[int, int]
) -> DecodedWeight:
    """Numbers of one byte times their scales, as BF16: exact without scales, rounded to nearest with them.

    Args:
        scale: a number for all, for each row, or for each block of a matrix; multiplies.
        block: (rows, columns) of a block, as the configuration says.

    Raises:
        FormatError: the scales do not fit the tensor.
    """
    shape = tensor.stored.shape
    values_of = _values_of_bytes(tensor.stored.dtype)
    bf16 = quants.by_name("BF16")
    scales = None if scale is None else _broadcast_scales(tensor, scale, block)

    def rows(begin: int, end: int) -> Bytes:
        values = values_of[tensor.view().reshape(math.prod(shape[:-1]), -1)[begin:end]]
        if scales is not None:
            grid, height, width = scales
            rows_of_grid = grid[np.minimum(np.arange(begin, end) // height, len(grid) - 1)]
            values *= np.repeat(rows_of_grid, width, axis=1)[:, : values.shape[1]] if width else rows_of_grid
        return bf16.encode(values)

    return DecodedWeight(TensorInfo(name, shape, "BF16", 2 * math.prod(shape)), tensor, rows)


def _values_of_bytes(dtype: str) -> Floats:
    """What each of the 256 bytes means."""
    every = np.arange(256, dtype=np.uint8)
    if dtype == "I8":
        return every.view(np.int8).astype(np.float32)
    import ml_dtypes

    values: Floats = every.view(getattr(ml_dtypes, _FLOAT8[dtype])).astype(np.float32)
    return values


def _broadcast_scales(
    tensor: FileTensor, scale: FileTensor, block: tuple[int, int]
) -> tuple[Floats, int, int]:
    """Scales as a matrix, with the height and width of what one of them covers (width 0: a whole row)."""
    grid, shape = scale.floats(), tensor.stored.shape
    if grid.size == 1:
        return grid.reshape(1, 1), max(shape[0] if shape else 1, 1), 0
    if len(shape) == 2:
        if grid.shape in ((shape[0],), (shape[0], 1)):
            return grid.reshape(-1, 1), 1, 0
        if grid.shape == (-(-shape[0] // block[0]), -(-shape[1] // block[1])):
            return grid, block[0], block[1]
    raise FormatError(
        f"{scale.file.path}: tensor {scale.name!r} has the shape {list(grid.shape)}, which fits neither the whole, "
        f"the rows nor blocks of {block[0]} x {block[1]} of {tensor.name!r} {list(shape)}"
    )
