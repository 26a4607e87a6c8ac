"""Writes Hugging Face weights: one .safetensors file, or shards with an index, streamed from iterators."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from torchless.errors import InvalidRequestError
from torchless.quants import Bytes
from torchless.weights.gguf_writer import TensorData
from torchless.weights.shards import group_by_size
from torchless.weights.write_behind import WriteBehind

__all__ = ["write_safetensors"]

_ELEMENT_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1}


def write_safetensors(
    folder: str | Path, tensors: Iterable[TensorData], max_bytes: int | None = None
) -> list[Path]:
    """Writes ``model.safetensors`` into a folder, or shards of at most `max_bytes` of data and their index.

    Args:
        folder: exists.
        tensors: Hugging Face names, shapes, types that safetensors files have, and data, which is read for one
            tensor at a time. A chunk is written while the next one is asked for, so it must not change.
        max_bytes: None writes one file.

    Returns:
        The files of weights. Each appears under its name only when it is complete.

    Raises:
        InvalidRequestError: a type that safetensors files do not have, or data of the wrong size.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    listed = sorted(tensors, key=lambda item: -_element_bytes(item))  # so that all data is aligned
    sizes = [
        int(np.prod(shape, dtype=np.int64)) * _element_bytes(item) for item in listed for shape in [item[1]]
    ]
    groups = group_by_size(sizes, max_bytes)
    paths, places = [], {}
    for number, group in enumerate(groups, 1):
        name = (
            f"model-{number:05}-of-{len(groups):05}.safetensors" if len(groups) > 1 else "model.safetensors"
        )
        _write_file(folder / name, [listed[i] for i in group], [sizes[i] for i in group])
        paths.append(folder / name)
        places.update({listed[i][0]: name for i in group})
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(places.items()))}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return paths


def _element_bytes(tensor: TensorData) -> int:
    name, _, type_name, _ = tensor
    if type_name not in _ELEMENT_BYTES:
        raise InvalidRequestError(
            f"tensor {name!r}: safetensors files have no type {type_name!r}; give F32, F16 or BF16"
        )
    return _ELEMENT_BYTES[type_name]


def _write_file(path: Path, tensors: Sequence[TensorData], sizes: Sequence[int]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for (name, shape, type_name, _), size in zip(tensors, sizes, strict=True):
        offsets = [position, position + size]
        header[name] = {"dtype": type_name, "shape": list(shape), "data_offsets": offsets}
        position += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file, WriteBehind(file) as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for (name, _, _, data), size in zip(tensors, sizes, strict=True):
                written = 0
                for chunk in _chunks(data):
                    out.write(np.ascontiguousarray(chunk))
                    written += chunk.nbytes
                if written != size:
                    raise InvalidRequestError(
                        f"tensor {name!r}: {written} bytes of data, its shape takes {size}"
                    )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(data: Iterable[Bytes] | Bytes) -> Iterable[Bytes]:
    return [data] if isinstance(data, np.ndarray) else data
