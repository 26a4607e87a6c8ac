"""Q5_0: 32 weights in 22 bytes, 5.5 bits per weight.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision, of either sign
2      4     qh, fifth bits: bit i of the 32-bit number belongs to weight i
6      16    ql, low 4 bits: byte j holds those of weight j (low half) and j + 16 (high half)
====== ===== ===================================================================================

weight[i] = d * (q[i] - 16), q[i] in 0..31. The encoder takes d = -m / 16, where m is the weight of largest
magnitude with its sign, so that m itself is hit exactly (up to d's rounding), as ggml's reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    high = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    packed = blocks[:, 6:]
    low = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    q = (low | (high << np.uint8(4))).astype(np.float32)
    values: Floats = scale * (q - np.float32(16))
    return values


def _encode(values: Floats) -> Bytes:
    peak = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = peak / np.float32(-16)
    inverse = ratio(np.float32(1), scale)
    # As in the reference, product and sum are rounded one after the other, then truncated.
    steps = values * inverse + np.float32(16.5)
    q = np.minimum(steps.astype(np.int32), 31).astype(np.uint8)
    low = q & np.uint8(15)
    blocks = np.empty((len(values), 22), np.uint8)
    blocks[:, :2] = scale.astype("<f2").view(np.uint8)
    blocks[:, 2:6] = np.packbits(q >> np.uint8(4), axis=1, bitorder="little")
    blocks[:, 6:] = low[:, :16] | (low[:, 16:] << np.uint8(4))
    return blocks


FORMAT = Format("Q5_0", 6, 32, 22, _decode, _encode, wide_fields=((0, 2), (2, 4)))
