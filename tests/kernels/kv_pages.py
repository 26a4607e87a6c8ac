"""The KV page layout of csrc/core/kv_layout.h written down a second time, in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

PAGE_TOKENS = 32
DTYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}

Floats = npt.NDArray[np.float32]


def align_up(n: int, alignment: int) -> int:
    return (n + alignment - 1) // alignment * alignment


class Pages:
    """Pages of one layer. Every byte starts as 0xff, which is NaN in each of the number formats."""

    def __init__(self, kv_type: str, num_kv_heads: int, head_dim: int, num_pages: int) -> None:
        self.dtype = DTYPES[kv_type]
        self.shape_k = (num_kv_heads, PAGE_TOKENS // 16, head_dim, 16)
        self.shape_v = (num_kv_heads, PAGE_TOKENS, align_up(head_dim, 16))
        self.head_dim = head_dim
        self.k_bytes = int(np.prod(self.shape_k)) * self.dtype.itemsize
        self.v_bytes = int(np.prod(self.shape_v)) * self.dtype.itemsize
        page_bytes = align_up(align_up(self.k_bytes + self.v_bytes, 64), 4096)
        self.bytes = np.full((num_pages, page_bytes), 0xFF, np.uint8)

    def keys(self, page: int) -> npt.NDArray[np.generic]:
        """Keys of a page as a view (head, group of 16, dimension, key in the group)."""
        return self.bytes[page, : self.k_bytes].view(self.dtype).reshape(self.shape_k)

    def values(self, page: int) -> npt.NDArray[np.generic]:
        """Values of a page as a view (head, key, padded dimension)."""
        return (
            self.bytes[page, self.k_bytes : self.k_bytes + self.v_bytes]
            .view(self.dtype)
            .reshape(self.shape_v)
        )

    def put(self, page: int, slot: int, k: Floats, v: Floats) -> None:
        """Stores one token's (head, dimension) keys and values, rounded to the page's type."""
        self.keys(page)[:, slot // 16, :, slot % 16] = k.astype(self.dtype)
        self.values(page)[:, slot, : self.head_dim] = v.astype(self.dtype)
        self.values(page)[:, slot, self.head_dim :] = 0
