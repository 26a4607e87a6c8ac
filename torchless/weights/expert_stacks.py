"""Matrices of experts that a folder stores one by one, as the stacks that GGUF files and plans have.

Hugging Face folders hold ``model.layers.N.mlp.experts.E.gate_proj.weight``; `names.canonical_name` calls such a tensor
``blk.N.ffn_gate_exps.E.weight``, and here all of them become ``blk.N.ffn_gate_exps.weight`` (experts, out, in).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from torchless.errors import FormatError
from torchless.quants import Bytes
from torchless.weights.pieces import FilePiece
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import FileTensor, StoredWeight

__all__ = ["renamed", "stack_experts"]

_EXPERT_NAME = re.compile(r"(blk\.\d+\.ffn_\w+_exps|altup_(?:unembd_)?proj)\.(\d+)\.(weight|bias)")


class _Stack(NamedTuple):
    """Tensors of all experts, one behind the other."""

    info: TensorInfo
    parts: tuple[StoredWeight, ...]
    is_view: bool = False

    @property
    def origin(self) -> FileTensor:
        """Where the first expert's tensor lies."""
        return self.parts[0].origin

    def raw(self) -> Bytes:
        """A copy of all of them."""
        each = self.info.num_bytes // len(self.parts)
        result: Bytes = np.empty((len(self.parts), each), np.uint8)
        for i, part in enumerate(self.parts):
            result[i] = part.raw()
            part.origin.drop_pages()
        result.flags.writeable = False
        return result.reshape(-1)

    def pieces(self) -> tuple[FilePiece, ...]:
        """Those of the experts' tensors, if all are stored as they are used."""
        found = [part.pieces() for part in self.parts]
        return tuple(piece for pieces in found for piece in pieces) if all(found) else ()


class _Renamed(NamedTuple):
    """A weight under another description of the same bytes."""

    info: TensorInfo
    weight: StoredWeight

    @property
    def origin(self) -> FileTensor:
        """Where it comes from."""
        return self.weight.origin

    @property
    def is_view(self) -> bool:
        """As the weight's own."""
        return self.weight.is_view

    def raw(self) -> Bytes:
        """Its bytes."""
        return self.weight.raw()

    def pieces(self) -> tuple[FilePiece, ...]:
        """As the weight's own."""
        return self.weight.pieces()


def renamed(weight: StoredWeight, name: str) -> StoredWeight:
    """The weight under another name."""
    info = weight.info
    if name == info.name:
        return weight
    return _Renamed(TensorInfo(name, info.shape, info.type, info.num_bytes), weight)


def _one_row(weight: StoredWeight) -> StoredWeight:
    """The gate of a shared expert, a matrix of one row, as the vector that GGUF files hold."""
    info = weight.info
    if info.name.endswith("ffn_gate_inp_shexp.weight") and len(info.shape) == 2 and info.shape[0] == 1:
        return _Renamed(TensorInfo(info.name, info.shape[1:], info.type, info.num_bytes), weight)
    return weight


def stack_experts(weights: Iterable[StoredWeight]) -> Iterator[StoredWeight]:
    """The weights, those of experts stacked in the order of the experts' numbers.

    Raises:
        FormatError: an expert is missing, or differs from the first in shape or type.
    """
    experts: dict[str, dict[int, StoredWeight]] = {}
    for weight in weights:
        match = _EXPERT_NAME.fullmatch(weight.info.name)
        if match is None:
            yield _one_row(weight)
            continue
        found = experts.setdefault(f"{match[1]}.{match[3]}", {})
        if int(match[2]) in found:
            raise FormatError(f"{weight.origin.file.path}: {weight.origin.name!r} appears twice")
        found[int(match[2])] = weight
    for name, by_number in experts.items():
        parts = tuple(by_number[number] for number in sorted(by_number))
        first = parts[0]
        if max(by_number) != len(parts) - 1:
            missing = next(number for number in range(len(parts)) if number not in by_number)
            raise FormatError(
                f"{first.origin.file.path}: {name}: expert {missing} is missing; the file has {len(parts)}, up to "
                f"number {max(by_number)}"
            )
        for part in parts:
            if (part.info.shape, part.info.type) != (first.info.shape, first.info.type):
                raise FormatError(
                    f"{part.origin.file.path}: {part.origin.name!r} is {part.info.type} {part.info.shape}, the first "
                    f"expert's tensor {first.info.type} {first.info.shape}"
                )
        shape = (len(parts), *first.info.shape)
        yield _Stack(TensorInfo(name, shape, first.info.type, len(parts) * first.info.num_bytes), parts)
