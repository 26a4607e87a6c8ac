"""Writes a model as one GGUF file or as the parts of a split one; copies metadata with its very types."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchless.errors import InvalidRequestError
from torchless.quants import stored_type
from torchless.weights.gguf_values import ValueType
from torchless.weights.gguf_writer import TensorData, TypedValue, write_gguf
from torchless.weights.shards import group_by_size
from torchless.weights.source import WeightSource

__all__ = ["typed_metadata", "write_gguf_parts"]


def write_gguf_parts(
    path: Path, metadata: Mapping[str, Any], tensors: Sequence[TensorData], max_bytes: int | None = None
) -> list[Path]:
    """Writes one file, or ``name-00001-of-00003.gguf`` and so on with at most `max_bytes` of tensors in each.

    The first part holds all metadata; the others say only which part they are. Any program that reads split
    files as llama.cpp writes them reads these.

    Returns:
        The files, in order. If one cannot be written, none is left.
    """
    groups = group_by_size([_num_bytes(tensor) for tensor in tensors], max_bytes)
    if len(groups) == 1:
        write_gguf(path, metadata, tensors)
        return [path]
    if len(groups) > 65535:
        raise InvalidRequestError(f"{path}: {len(groups)} parts are too many; expected at most 65535")
    alignment = {key: metadata[key] for key in ("general.alignment",) if key in metadata}
    paths: list[Path] = []
    try:
        for number, group in enumerate(groups):
            place = {
                "split.no": np.uint16(number),
                "split.count": np.uint16(len(groups)),
                "split.tensors.count": np.int32(len(tensors)),
            }
            part = path.with_name(f"{path.stem}-{number + 1:05}-of-{len(groups):05}.gguf")
            head = metadata if number == 0 else alignment
            write_gguf(part, {**head, **place}, [tensors[index] for index in group])
            paths.append(part)
    except BaseException:
        for part in paths:
            part.unlink(missing_ok=True)
        raise
    return paths


def typed_metadata(source: WeightSource) -> Iterator[tuple[str, Any]]:
    """Metadata with the types of the source's file; what only split files need is left out."""
    types: Mapping[str, ValueType] = getattr(source, "value_types", {})
    for key, value in source.metadata.items():
        if key.startswith("split."):
            continue
        is_scalar = isinstance(value, bool | int | float | str | np.generic)
        yield key, TypedValue(types[key], value) if is_scalar and key in types else value


def _num_bytes(tensor: TensorData) -> int:
    name, shape, type_name, _ = tensor
    stored = stored_type(type_name)
    if stored is None:
        raise InvalidRequestError(f"tensor {name!r}: {type_name!r} is not a GGUF type")
    return math.prod(shape) // stored.block_elements * stored.block_bytes
