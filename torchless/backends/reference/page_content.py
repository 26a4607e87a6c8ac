"""What pages hold: keys and values of each layer, and all of them as bytes, one layer after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS
from torchless.backends.reference.ops import Array
from torchless.plan import Plan

__all__ = ["packed_page", "page_bytes", "store_tokens", "unpacked_page"]


def page_bytes(plan: Plan) -> int:
    """Size of a page of all layers."""
    return sum(2 * 8 * PAGE_TOKENS * op.num_kv_heads * op.head_dim for op in plan.cache_ops)


def store_tokens(
    pages: dict[tuple[int, int], tuple[Array, Array]],
    layer: int,
    table: list[int],
    position: int,
    k: Array,
    v: Array,
) -> None:
    """Puts keys and values of tokens, from a position on, into the pages of a sequence; makes those that are new."""
    for i in range(len(k)):
        page, slot = divmod(position + i, PAGE_TOKENS)
        key = (layer, table[page])
        if key not in pages:
            shape = (PAGE_TOKENS, *k.shape[1:])
            pages[key] = (np.zeros(shape), np.zeros(shape))
        pages[key][0][slot] = k[i]
        pages[key][1][slot] = v[i]


def packed_page(layers: Iterable[tuple[Array, Array]]) -> npt.NDArray[np.uint8]:
    """Keys and values of all layers, each (PAGE_TOKENS, kv_heads, head_dim)."""
    return np.concatenate([part.reshape(-1) for pair in layers for part in pair]).view(np.uint8)


def unpacked_page(content: npt.NDArray[np.uint8], plan: Plan) -> Iterator[tuple[Array, Array]]:
    """What `packed_page` was given for a plan: arrays of their own."""
    values, start = np.frombuffer(content.tobytes(), np.float64), 0
    for op in plan.cache_ops:
        size = 2 * PAGE_TOKENS * op.num_kv_heads * op.head_dim
        shape = (2, PAGE_TOKENS, op.num_kv_heads, op.head_dim)
        keys, cached = values[start : start + size].reshape(shape).copy()
        yield keys, cached
        start += size
