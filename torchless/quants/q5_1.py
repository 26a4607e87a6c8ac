"""Q5_1: 32 weights in 24 bytes, 6 bits per weight.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      2     m, minimum, half precision
4      4     qh, fifth bits: bit i of the 32-bit number belongs to weight i
8      16    ql, low 4 bits: byte j holds those of weight j (low half) and j + 16 (high half)
====== ===== ===================================================================================

weight[i] = d * q[i] + m. The encoder lays q = 0..31 evenly from the least weight to the greatest, as ggml's
reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    high = np.unpackbits(blocks[:, 4:8], axis=1, bitorder="little")
    packed = blocks[:, 8:]
    low = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    q = (low | (high << np.uint8(4))).astype(np.float32)
    values: Floats = scale * q + minimum
    return values


def _encode(values: Floats) -> Bytes:
    minimum = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - minimum) / np.float32(31)
    inverse = ratio(np.float32(1), scale)
    # As in the reference, product and sum are rounded one after the other, then truncated.
    steps = (values - minimum) * inverse + np.float32(0.5)
    q = np.minimum(steps.astype(np.int32), 31).astype(np.uint8)
    low = q & np.uint8(15)
    blocks = np.empty((len(values), 24), np.uint8)
    blocks[:, 0:2] = scale.astype("<f2").view(np.uint8)
    blocks[:, 2:4] = minimum.astype("<f2").view(np.uint8)
    blocks[:, 4:8] = np.packbits(q >> np.uint8(4), axis=1, bitorder="little")
    blocks[:, 8:] = low[:, :16] | (low[:, 16:] << np.uint8(4))
    return blocks


FORMAT = Format("Q5_1", 7, 32, 24, _decode, _encode, wide_fields=((0, 2), (2, 2), (4, 4)))
