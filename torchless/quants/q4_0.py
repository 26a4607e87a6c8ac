"""Q4_0: 32 weights in 18 bytes, 4.5 bits per weight.

====== ===== ===========================================================================
offset bytes field
====== ===== ===========================================================================
0      2     d, scale, half precision, of either sign
2      16    q, 4 bits per weight: byte j holds weight j (low half) and j + 16 (high half)
====== ===== ===========================================================================

weight[i] = d * (q[i] - 8). Neighbours do not share a byte: some descriptions of "int4" pair weights 2j and
2j + 1, this format does not. The encoder takes d = -m / 8, where m is the weight of largest magnitude with
its sign, so that m itself is hit exactly (up to d's rounding), as ggml's reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    packed = blocks[:, 2:]
    q = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    values: Floats = scale * (q.astype(np.float32) - np.float32(8))
    return values


def _encode(values: Floats) -> Bytes:
    peak = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    scale = peak / np.float32(-8)
    inverse = ratio(np.float32(1), scale)
    # As in the reference, product and sum are rounded one after the other, then truncated.
    steps = values * inverse + np.float32(8.5)
    q = np.minimum(steps.astype(np.int32), 15).astype(np.uint8)
    blocks = np.empty((len(values), 18), np.uint8)
    blocks[:, :2] = scale.astype("<f2").view(np.uint8)
    blocks[:, 2:] = q[:, :16] | (q[:, 16:] << np.uint8(4))
    return blocks


FORMAT = Format("Q4_0", 2, 32, 18, _decode, _encode, wide_fields=((0, 2),))
