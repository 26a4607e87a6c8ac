"""The KV page layout of csrc/core/kv_layout.h written down a second time, in NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

PAGE_TOKENS = 32
BLOCK = 32
DTYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
KV_TYPES = [*DTYPES, "q8_0", "q4_0"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def align_up(n: int, alignment: int) -> int:
    return (n + alignment - 1) // alignment * alignment


def kv_types(kv_type: str) -> tuple[str, str]:
    """Types of keys and values: ``"f16"`` for both, or ``"q8_0/f16"``."""
    k, _, v = kv_type.partition("/")
    return k, v or k


def quantise(kv_type: str, x: Floats) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int8]]:
    """x (..., dimension) -> scales (..., blocks) and whole numbers (..., blocks, 32); the rest of a block is 0."""
    blocks = -(-x.shape[-1] // BLOCK)
    padded = np.zeros((*x.shape[:-1], blocks * BLOCK), np.float32)
    padded[..., : x.shape[-1]] = x
    padded = padded.reshape(*x.shape[:-1], blocks, BLOCK)
    highest, lowest = padded.max(axis=-1), padded.min(axis=-1)
    extreme = np.where(highest >= -lowest, highest, lowest)
    q8 = kv_type == "q8_0"
    with np.errstate(all="ignore"):
        d = (np.abs(extreme) / np.float32(127) if q8 else extreme / np.float32(-8)).astype(np.float16)
        q = np.rint(padded / d.astype(np.float32)[..., None])
    q = np.where(d[..., None] == 0, 0, q)
    return d, np.clip(q, -127 if q8 else -8, 127 if q8 else 7).astype(np.int8)


def rounded(kv_type: str, x: Floats) -> Floats:
    """What a cache of this type keeps of x (..., dimension)."""
    if kv_type in DTYPES:
        return x.astype(DTYPES[kv_type]).astype(np.float32)
    d, q = quantise(kv_type, x)
    values = q.astype(np.float32) * d.astype(np.float32)[..., None]
    return values.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


class Pages:
    """Pages of one layer. Every byte starts as 0xff, which is NaN in each of the number formats."""

    def __init__(self, kv_type: str, num_kv_heads: int, head_dim: int, num_pages: int) -> None:
        self.k_type, self.v_type = kv_types(kv_type)
        self.num_kv_heads, self.head_dim = num_kv_heads, head_dim
        self.blocks = -(-head_dim // BLOCK)
        self.value_width = align_up(head_dim, 16)
        k, v = (self._head_bytes(t, w) for t, w in ((self.k_type, head_dim), (self.v_type, self.value_width)))
        self.k_head_bytes, self.v_head_bytes = k, v
        page_bytes = align_up(align_up(num_kv_heads * (k + v), 64), 4096)
        self.bytes = np.full((num_pages, page_bytes), 0xFF, np.uint8)

    def _data_bytes(self, kv_type: str, width: int) -> int:
        if kv_type in DTYPES:
            return PAGE_TOKENS * width * DTYPES[kv_type].itemsize
        return PAGE_TOKENS * (width if kv_type == "q8_0" else self.blocks * BLOCK // 2)

    def _head_bytes(self, kv_type: str, width: int) -> int:
        scales = 0 if kv_type in DTYPES else PAGE_TOKENS * self.blocks * 2
        return self._data_bytes(kv_type, width) + scales

    def put(self, page: int, slot: int, k: Floats, v: Floats) -> None:
        """Stores one token's (head, dimension) keys and values, rounded to the page's types."""
        for head in range(self.num_kv_heads):
            start = head * self.k_head_bytes
            self._put_key(self.bytes[page, start : start + self.k_head_bytes], slot, k[head])
            start = self.num_kv_heads * self.k_head_bytes + head * self.v_head_bytes
            self._put_value(self.bytes[page, start : start + self.v_head_bytes], slot, v[head])

    def _put_key(self, head: Bytes, slot: int, k: Floats) -> None:
        group, lane = slot // 16, slot % 16
        if self.k_type in DTYPES:
            dtype = DTYPES[self.k_type]
            head.view(dtype).reshape(2, self.head_dim, 16)[group, :, lane] = k.astype(dtype)
            return
        d, q = quantise(self.k_type, k)
        split = self._data_bytes(self.k_type, self.head_dim)
        head[split:].view(np.float16).reshape(2, self.blocks, 16)[group, :, lane] = d
        if self.k_type == "q8_0":
            keys = head[:split].view(np.int8).reshape(2, self.head_dim, 16)
            keys[group, :, lane] = q.reshape(-1)[: self.head_dim]
        else:
            head[:split].reshape(2, self.blocks, 16, 16)[group, :, :, lane] = _nibbles(q)

    def _put_value(self, head: Bytes, slot: int, v: Floats) -> None:
        padded = np.zeros(self.value_width, np.float32)
        padded[: self.head_dim] = v
        if self.v_type in DTYPES:
            dtype = DTYPES[self.v_type]
            head.view(dtype).reshape(PAGE_TOKENS, self.value_width)[slot] = padded.astype(dtype)
            return
        d, q = quantise(self.v_type, padded)
        split = self._data_bytes(self.v_type, self.value_width)
        head[split:].view(np.float16).reshape(self.blocks, PAGE_TOKENS)[:, slot] = d
        if self.v_type == "q8_0":
            values = head[:split].view(np.int8).reshape(PAGE_TOKENS, self.value_width)
            values[slot] = q.reshape(-1)[: self.value_width]
        else:
            head[:split].reshape(PAGE_TOKENS, self.blocks, 16)[slot] = _nibbles(q)


def _nibbles(q: npt.NDArray[np.int8]) -> Bytes:
    """(blocks, 32) in -8 .. 7 -> (blocks, 16): elements j and j + 16 share a byte."""
    plus8 = (q + 8).astype(np.uint8)
    return plus8[:, :16] | plus8[:, 16:] << 4
