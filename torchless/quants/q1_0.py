"""Q1_0: 128 weights in 18 bytes, 1.125 bits per weight: a sign each.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      16    bits, the lowest of a byte first
====== ===== ===================================================================================

weight = d where the bit is set, -d where it is not.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
    values: Floats = d * (np.float32(2) * bits - np.float32(1))
    return values


FORMAT = Format("Q1_0", 41, 128, 18, _decode, wide_fields=((0, 2),))
