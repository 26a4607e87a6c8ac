"""Q4_1: 32 weights in 20 bytes, 5 bits per weight.

====== ===== ===========================================================================
offset bytes field
====== ===== ===========================================================================
0      2     d, scale, half precision
2      2     m, minimum, half precision
4      16    q, 4 bits per weight: byte j holds weight j (low half) and j + 16 (high half)
====== ===== ===========================================================================

weight[i] = d * q[i] + m. The encoder lays q = 0..15 evenly from the least weight to the greatest, as ggml's
reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    packed = blocks[:, 4:]
    q = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    values: Floats = scale * q.astype(np.float32) + minimum
    return values


def _encode(values: Floats) -> Bytes:
    minimum = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - minimum) / np.float32(15)
    inverse = ratio(np.float32(1), scale)
    # As in the reference, product and sum are rounded one after the other, then truncated.
    steps = (values - minimum) * inverse + np.float32(0.5)
    q = np.minimum(steps.astype(np.int32), 15).astype(np.uint8)
    blocks = np.empty((len(values), 20), np.uint8)
    blocks[:, 0:2] = scale.astype("<f2").view(np.uint8)
    blocks[:, 2:4] = minimum.astype("<f2").view(np.uint8)
    blocks[:, 4:] = q[:, :16] | (q[:, 16:] << np.uint8(4))
    return blocks


FORMAT = Format("Q4_1", 3, 32, 20, _decode, _encode, wide_fields=((0, 2), (2, 2)))
