"""GGUF model files as a weight source: memory-mapped, zero-copy, split files joined.

What happens when a file is opened: its header is read and checked (`gguf_header`), tensor data is only
mapped. A model split into ``name-00001-of-00003.gguf`` and so on may be opened by any of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple

from torchless.errors import FormatError, ModelNotFoundError
from torchless.quants import Bytes, by_name
from torchless.weights.gguf_header import GgufHeader, read_header
from torchless.weights.gguf_values import ValueType
from torchless.weights.mapped_file import MappedFile
from torchless.weights.pieces import FilePiece
from torchless.weights.source import TensorInfo

__all__ = ["PART_NAME", "GgufSource"]

PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[^.]*)?")
"""How the files of a split model are called."""


class GgufSource:
    """A GGUF file, or all parts of a split one, opened and checked. Implements `source.WeightSource`.

    Big-endian files are read too: metadata at no cost, and `raw` gives a little-endian copy of a tensor
    instead of a view, for the formats that torchless runs.

    Attributes:
        value_types: GGUF type of every metadata value (ARRAY values know their element type).
        version: GGUF version of the first part.
        num_parts: files that the model consists of.

    Raises:
        FormatError: a file is broken; the message names file and field.
        ModelNotFoundError: a part of a split model is missing.

    Example:
        >>> with GgufSource("model.gguf") as source:                                # doctest: +SKIP
        ...     source.metadata["general.architecture"], source.raw("output_norm.weight").nbytes
        ('llama', 8192)
    """

    path: Path
    format: Literal["gguf", "safetensors"] = "gguf"
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"] = "interleaved"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._parts = _open_parts(self.path)
        first = self._parts[0].header
        self.metadata = MappingProxyType(first.metadata)
        self.value_types: Mapping[str, ValueType] = MappingProxyType(first.value_types)
        self.version = first.version
        self.num_parts = len(self._parts)
        self._part_of: dict[str, _Part] = {}
        tensors: dict[str, TensorInfo] = {}
        for part in self._parts:
            for name, info in part.header.tensors.items():
                if name in tensors:
                    other = self._part_of[name].path.name
                    raise FormatError(
                        f"{part.path}: tensor {name!r} is also in {other}; one of them is wrong"
                    )
                tensors[name] = info
                self._part_of[name] = part
        self.tensors = MappingProxyType(tensors)

    def raw(self, name: str) -> Bytes:
        """The stored bytes of a tensor, read-only. Zero-copy, but for big-endian files."""
        part, info = self._part_of[name], self.tensors[name]
        if part.header.data_missing:
            raise FormatError(
                f"{part.path}: tensor {name!r}, data: the file ends where the tensor data should begin; "
                f"it is a header only: get the whole file"
            )
        view = part.file.view(part.header.offsets[name], info.num_bytes)
        if part.header.big_endian:
            view = by_name(info.type).byteswapped(view)
            view.flags.writeable = False
        return view

    def pieces(self, name: str) -> tuple[FilePiece, ...]:
        """Where a tensor lies; nothing for big-endian files. See `pieces.SourceOfPieces`."""
        part = self._part_of[name]
        if part.header.big_endian or part.header.data_missing:
            return ()
        return (FilePiece(part.file, part.header.offsets[name], self.tensors[name].num_bytes),)

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the operating system take back the memory behind a tensor, or behind `num_bytes` bytes of it from
        `start` on; a later read loads it again."""
        part = self._part_of[name]
        if not part.header.data_missing:
            rest = self.tensors[name].num_bytes - start
            part.file.drop_pages(part.header.offsets[name] + start, rest if num_bytes is None else num_bytes)

    def close(self) -> None:
        """Lets go of the tensor data; it is unmapped once the last view is gone. Metadata stays readable."""
        for part in self._parts:
            part.file.close()

    def __enter__(self) -> GgufSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Part(NamedTuple):
    """One file and its checked header."""

    file: MappedFile
    header: GgufHeader

    @property
    def path(self) -> Path:
        return self.file.path


def _open_parts(path: Path) -> list[_Part]:
    """All parts of the model that `path` is (a part of), in order."""
    opened = _read_part(path)
    count = _split_number(opened, "split.count", default=1)
    if count <= 1:
        return [opened]
    match = PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise FormatError(
            f"{path}: split.count: the file is one of {count} parts, but its name does not end in "
            f"'-00001-of-{count:05}.gguf': give all parts their original names"
        )
    parts = []
    for index in range(count):
        name = f"{match['stem']}-{index + 1:05}-of-{count:05}{match['suffix'] or ''}"
        part = opened if name == path.name else _open_part(path.with_name(name), index + 1, count)
        for key, expected in (("split.no", index), ("split.count", count)):
            found = _split_number(part, key, default=expected)
            if found != expected:
                raise FormatError(f"{part.path}: {key}: found {found}, expected {expected}; was it renamed?")
        parts.append(part)
    total = _split_number(parts[0], "split.tensors.count", default=-1)
    found = sum(len(part.header.tensors) for part in parts)
    if total not in (-1, found):
        raise FormatError(f"{path}: split.tensors.count: found {total}, but the parts have {found} tensors")
    return parts


def _read_part(path: Path) -> _Part:
    file = MappedFile(path)
    return _Part(file, read_header(path, file.header))


def _open_part(path: Path, number: int, count: int) -> _Part:
    try:
        return _read_part(path)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path}: no such file; it is part {number} of {count} of this model: put all parts in one folder"
        ) from None


def _split_number(part: _Part, key: str, default: int) -> int:
    value = part.header.metadata.get(key, default)
    if not isinstance(value, int):
        raise FormatError(f"{part.path}: {key}: found {value!r}, expected an integer")
    return value
