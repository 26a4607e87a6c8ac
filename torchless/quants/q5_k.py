"""Q5_K: 256 weights in 176 bytes, 5.5 bits per weight: 8 sub-blocks of 32 with a scale and a minimum each.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale of the scales, half precision
2      2     dmin, scale of the minimums, half precision
4      12    8 scales sc and 8 minimums m of 6 bits, packed as in Q4_K
16     32    qh, fifth bits: bit s of byte l belongs to weight l of sub-block s
48     128   q, low 4 bits: byte 32c + l holds those of weight l of sub-block 2c (low half) and 2c + 1
====== ===== ===================================================================================

weight = (d * sc) * q - (dmin * m) of its sub-block, q in 0..31. Only the number of bits differs from Q4_K, and
the encoder is the same: not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants.q4_k import quantise_sub_blocks, scale_sub_blocks

_SUB_BLOCKS = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)


def _decode(blocks: Bytes) -> Floats:
    packed = blocks[:, 48:].reshape(-1, 4, 1, 32)
    low = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=2).reshape(-1, 8, 32)
    high = (blocks[:, None, 16:48] >> _SUB_BLOCKS) & np.uint8(1)
    return scale_sub_blocks(blocks[:, :16], low | (high << np.uint8(4)))


def _encode(values: Floats) -> Bytes:
    scales, q = quantise_sub_blocks(values, 31)
    pairs = (q & np.uint8(15)).reshape(-1, 4, 2, 32)
    blocks = np.empty((len(values), 176), np.uint8)
    blocks[:, :16] = scales
    blocks[:, 16:48] = np.bitwise_or.reduce((q >> np.uint8(4)) << _SUB_BLOCKS, axis=1)
    blocks[:, 48:] = (pairs[:, :, 0] | (pairs[:, :, 1] << np.uint8(4))).reshape(-1, 128)
    return blocks


FORMAT = Format("Q5_K", 13, 256, 176, _decode, _encode, wide_fields=((0, 2), (2, 2)))
