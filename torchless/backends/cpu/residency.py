"""Which matrices are packed into memory and which stay in their file, to be packed as they are used.

A step that decodes reads every matrix once, always in the same order. A cache that keeps what was
used last has nothing then that comes up again in time, so a fixed part is packed for good and the rest is read from the
file each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from torchless.backends.cpu.lower_experts import Stack
from torchless.weights.pieces import FilePiece

__all__ = ["Candidate", "MappedMatrix", "WeightKey", "choose_mapped", "locate"]

WeightKey: TypeAlias = "str | Stack"
"""A matrix by its name (`Linear.matrix`), or all matrices of a stack."""


class Candidate(NamedTuple):
    """What may stay in the file, and what it would take in memory."""

    key: WeightKey
    packed_bytes: int


class MappedMatrix(NamedTuple):
    """A matrix in its file.

    Attributes:
        handle: of the core.
        piece: its rows, and nothing else.
        num_tiles: of 16 rows.
        share: of the steps of one token that read it: less than 1 for an expert.
    """

    handle: int
    piece: FilePiece
    num_tiles: int
    share: float


def choose_mapped(candidates: Iterable[Candidate], packed_bytes: int | None) -> frozenset[WeightKey]:
    """Those of the candidates that stay in the file: the first are packed, as far as they fit.

    Args:
        packed_bytes: most bytes that they may take; None packs all.
    """
    if packed_bytes is None:
        return frozenset()
    mapped = set()
    for key, size in candidates:
        if size <= packed_bytes:
            packed_bytes -= size
        else:
            mapped.add(key)
    return frozenset(mapped)


def locate(pieces: tuple[FilePiece, ...], start: int, num_bytes: int) -> FilePiece:
    """Where `num_bytes` bytes of a tensor lie, from its byte `start` on. They must not cross pieces."""
    for piece in pieces:
        if start < piece.num_bytes:
            assert start + num_bytes <= piece.num_bytes, "rows across pieces"
            return FilePiece(piece.file, piece.offset + start, num_bytes)
        start -= piece.num_bytes
    raise AssertionError("rows outside their tensor")
