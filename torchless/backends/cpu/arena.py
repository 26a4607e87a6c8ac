"""Plans the step arena: where each intermediate value lies, so that values never alive together share memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Lifetime", "plan_arena"]

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A block of `num_bytes` in use from stage `first` to stage `last`, both included."""

    num_bytes: int
    first: int
    last: int


def plan_arena(blocks: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets of the blocks and the size of the arena in bytes.

    Largest blocks first, each at the lowest offset free during its whole life (Pisarchyk & Lee 2020,
    "Efficient memory management for deep neural net inference", greedy by size).
    """
    offsets = [0] * len(blocks)
    placed: list[int] = []
    for index in sorted(range(len(blocks)), key=lambda i: (-blocks[i].num_bytes, i)):
        block = blocks[index]
        neighbours = sorted(
            (offsets[i], blocks[i].num_bytes)
            for i in placed
            if blocks[i].first <= block.last and block.first <= blocks[i].last
        )
        offset = 0
        for start, num_bytes in neighbours:
            if offset + block.num_bytes <= start:
                break
            offset = max(offset, _align(start + num_bytes))
        offsets[index] = offset
        placed.append(index)
    total = max((offsets[i] + b.num_bytes for i, b in enumerate(blocks)), default=0)
    return offsets, _align(max(total, 1))


def _align(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
