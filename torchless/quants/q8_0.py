"""Q8_0: 32 weights in 34 bytes, 8.5 bits per weight.

====== ===== =======================================
offset bytes field
====== ===== =======================================
0      2     d, scale, half precision
2      32    q, one signed byte per weight, in order
====== ===== =======================================

weight[i] = d * q[i]. The encoder takes d = max|x| / 127 and rounds half away from zero, byte for byte as
ggml's reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    values: Floats = scale * blocks[:, 2:].view(np.int8).astype(np.float32)
    return values


def _encode(values: Floats) -> Bytes:
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    inverse = ratio(np.float32(1), scale)
    x = values * inverse
    magnitude = np.abs(x)
    floor = np.floor(magnitude)
    # Half away from zero, which rint() does not do.
    rounded = np.copysign(floor + (magnitude - floor >= np.float32(0.5)), x)
    blocks = np.empty((len(values), 34), np.uint8)
    blocks[:, :2] = scale.astype("<f2").view(np.uint8)
    blocks[:, 2:] = rounded.astype(np.int8).view(np.uint8)
    return blocks


FORMAT = Format("Q8_0", 8, 32, 34, _decode, _encode, wide_fields=((0, 2),))
