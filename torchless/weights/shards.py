"""How a model is cut into several files: sizes as people write them, tensors in groups of at most one size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchless.errors import InvalidRequestError

__all__ = ["group_by_size", "shard_bytes"]


def group_by_size(sizes: Sequence[int], max_bytes: int | None) -> list[list[int]]:
    """Indices in order, cut where a group would exceed `max_bytes`; one that is larger alone stands alone.

    >>> group_by_size([3, 3, 9, 1], 6)
    [[0, 1], [2], [3]]
    """
    groups: list[list[int]] = [[]]
    total = 0
    for index, size in enumerate(sizes):
        if max_bytes is not None and groups[-1] and total + size > max_bytes:
            groups.append([])
            total = 0
        groups[-1].append(index)
        total += size
    return groups


def shard_bytes(text: str) -> int:
    """Bytes of ``"500M"`` or ``"2G"``, as llama.cpp's splitter reads them (powers of 1000), or ``"2GiB"``.

    >>> shard_bytes("2G"), shard_bytes("1MiB"), shard_bytes("4096")
    (2000000000, 1048576, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    size = 0
    if match is not None:
        power = " kmgt".index(match[2].lower() or " ")
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size < 1:
        raise InvalidRequestError(f"{text!r} is not a size; expected a number with K, M, G or MiB, GiB")
    return size
