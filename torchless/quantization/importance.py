"""Importance matrices: how strongly each input column of a matrix is used, from llama.cpp's two file formats.

The GGUF form holds two tensors per matrix: ``NAME.in_sum2``, sums of squared activations (parts, columns), and
``NAME.counts``, rows summed up (parts, 1); a part is an expert. The older form (``.dat``) is binary: the number of
entries, then per entry the length of its name, the name, the number of calls, the number of values, and as many
float32 sums, already divided by the rows of a call; all numbers are int32, little-endian.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError, InvalidRequestError, ModelNotFoundError
from torchless.quants import Floats
from torchless.weights.source import TensorInfo

__all__ = ["ImportanceMatrix", "check_belongs", "read_importance", "write_importance"]

_log = logging.getLogger("torchless")

_LAYER = re.compile(r"blk\.(\d+)\.")
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """Mean squared activations of the input columns of matrices.

    Attributes:
        means: by matrix: (parts, columns), where a part is an expert; one part for a plain matrix.
        counts: by matrix: rows of activations behind each part (parts,).
        chunks: chunks of text that were run.
        chunk_tokens: tokens of a chunk.
        datasets: texts that were run.
    """

    means: Mapping[str, Floats]
    counts: Mapping[str, npt.NDArray[np.float32]]
    chunks: int = 0
    chunk_tokens: int = 512
    datasets: tuple[str, ...] = ()
    path: Path | None = field(default=None, compare=False)

    def of(self, name: str) -> Floats | None:
        """Weights of a matrix's columns, (columns,) or (parts, columns); None where nothing was seen."""
        found = self.means.get(name)
        if found is None or not (found > 0).any():
            return None
        # A column that was never used still has to be stored, and an expert that was never asked too.
        floor = max(float(found.mean()) * 1e-6, 1e-30)
        usable = np.where((found > 0).any(axis=1, keepdims=True), found, np.float32(1))
        weights: Floats = np.maximum(usable, np.float32(floor)).astype(np.float32)
        return weights[0] if len(weights) == 1 else weights


def check_belongs(matrix: ImportanceMatrix, infos: Sequence[TensorInfo], num_layers: int) -> None:
    """Looks whether the matrix was measured on this model; the log warns of tensors that it says nothing about.

    Args:
        infos: the tensors that may be quantised.

    Raises:
        InvalidRequestError: it knows none of them, other columns, other experts, or more layers.
    """

    def refuse(problem: str) -> NoReturn:
        raise InvalidRequestError(
            f"importance matrix {matrix.path}: {problem}: it belongs to another model; measure this one with "
            f"torchless imatrix"
        )

    known = [info for info in infos if info.name in matrix.means]
    if not known:
        refuse(f"none of its {len(matrix.means)} matrices is in the model")
    for info in known:
        parts, columns = matrix.means[info.name].shape
        experts = info.shape[0] if len(info.shape) > 2 else 1
        if columns != info.shape[-1]:
            refuse(f"{info.name!r} has {columns} columns, the model's {info.shape[-1]}")
        if parts not in (1, experts):
            refuse(f"{info.name!r} has {parts} experts, the model's {experts}")
    last = max((int(found[1]) for name in matrix.means if (found := _LAYER.match(name))), default=0)
    if last >= num_layers > 0:
        refuse(f"it has a layer {last} (from 0), the model {num_layers} layers")
    in_layers = [info.name for info in infos if _LAYER.match(info.name)]
    others = [name for name in in_layers if name not in matrix.means]
    if others:
        _log.warning(
            "importance matrix %s says nothing of %d of %d matrices in layers, such as %s; they are quantised without",
            *(matrix.path, len(others), len(in_layers), others[0]),
        )


def read_importance(path: str | Path) -> ImportanceMatrix:
    """Reads an importance matrix in either form.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is not an importance matrix.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except OSError as error:
        raise ModelNotFoundError(f"{path}: the importance matrix cannot be read: {error.strerror}") from None
    return _read_gguf(path) if is_gguf else _read_legacy(path)


def write_importance(path: str | Path, matrix: ImportanceMatrix) -> None:
    """Writes the GGUF form, as llama.cpp's tool does."""
    from torchless.weights.gguf_writer import TensorData, write_gguf

    tensors: list[TensorData] = []
    for name in sorted(matrix.means):
        counts = matrix.counts[name].astype("<f4")
        sums = (matrix.means[name] * counts[:, None]).astype("<f4")
        tensors.append((name + _SUMS, sums.shape, "F32", sums.view(np.uint8).reshape(-1)))
        tensors.append((name + _COUNTS, (len(counts), 1), "F32", counts.view(np.uint8)))
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": list(matrix.datasets) or [""],
        "imatrix.chunk_count": np.uint32(matrix.chunks),
        "imatrix.chunk_size": np.uint32(matrix.chunk_tokens),
    }
    write_gguf(path, metadata, tensors)


def _read_gguf(path: Path) -> ImportanceMatrix:
    from torchless.weights.gguf import GgufSource

    means: dict[str, Floats] = {}
    counts: dict[str, npt.NDArray[np.float32]] = {}
    with GgufSource(path) as source:
        for name, info in source.tensors.items():
            if not name.endswith(_SUMS):
                continue
            matrix = name.removesuffix(_SUMS)
            other = source.tensors.get(matrix + _COUNTS)
            if other is None or info.type != "F32" or other.type != "F32":
                raise FormatError(
                    f"{path}: {name!r} needs F32 sums and {matrix + _COUNTS!r} of F32 beside it"
                )
            seen = source.raw(other.name).view("<f4").astype(np.float32)
            sums = source.raw(name).view("<f4").astype(np.float32).reshape(-1, info.shape[-1])
            if len(seen) != len(sums):
                raise FormatError(f"{path}: {name!r} has {len(sums)} parts but {len(seen)} counts")
            means[matrix] = (sums / np.maximum(seen, 1)[:, None]).astype(np.float32)
            counts[matrix] = seen
        metadata = source.metadata
        if not means:
            raise FormatError(f"{path}: no importance matrix: it holds no tensor that ends in {_SUMS!r}")
        chunks, tokens = metadata.get("imatrix.chunk_count", 0), metadata.get("imatrix.chunk_size", 512)
        datasets = metadata.get("imatrix.datasets", ())
        return ImportanceMatrix(
            _checked(path, means), counts, int(chunks), int(tokens), tuple(map(str, datasets)), path
        )


def _read_legacy(path: Path) -> ImportanceMatrix:
    data = path.read_bytes()
    position = 0

    def take(num_bytes: int) -> bytes:
        nonlocal position
        if num_bytes < 0 or position + num_bytes > len(data):
            raise FormatError(f"{path}: not an importance matrix: it ends inside an entry at byte {position}")
        position += num_bytes
        return data[position - num_bytes : position]

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    means: dict[str, Floats] = {}
    counts: dict[str, npt.NDArray[np.float32]] = {}
    for _ in range(integer()):
        name = take(integer()).decode("utf-8", "replace")
        calls, size = integer(), integer()
        if calls < 1 or size < 1:
            raise FormatError(
                f"{path}: entry {name!r}: {calls} calls and {size} values; expected at least one"
            )
        means[name] = np.frombuffer(take(4 * size), "<f4").reshape(1, size) / np.float32(calls)
        counts[name] = np.array([calls], np.float32)
    if not means:
        raise FormatError(f"{path}: not an importance matrix: it has no entries")
    chunks = integer() if position < len(data) else 0
    datasets = (take(integer()).decode("utf-8", "replace"),) if position < len(data) else ()
    return ImportanceMatrix(_checked(path, means), counts, chunks, 512, datasets, path)


def _checked(path: Path, means: dict[str, Floats]) -> dict[str, Floats]:
    for name, values in means.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise FormatError(f"{path}: {name!r} holds a number that is not finite or below zero")
    return means
