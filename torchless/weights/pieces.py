"""Tensors as they lie in their files: for readers that leave them there."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torchless.weights.mapped_file import MappedFile
from torchless.weights.source import WeightSource

__all__ = ["FilePiece", "SourceOfPieces", "pieces_of"]


class FilePiece(NamedTuple):
    """Bytes of a file that are used as they are stored."""

    file: MappedFile
    offset: int
    num_bytes: int


@runtime_checkable
class SourceOfPieces(Protocol):
    """A `WeightSource` that knows where its tensors lie."""

    def pieces(self, name: str) -> tuple[FilePiece, ...]:
        """The pieces that make up a tensor, in order; none where its bytes are not stored as they are used."""
        ...


def pieces_of(source: WeightSource, name: str) -> tuple[FilePiece, ...]:
    """Where a tensor lies; nothing where a source computes it, or does not know."""
    return source.pieces(name) if isinstance(source, SourceOfPieces) else ()
