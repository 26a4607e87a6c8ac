"""Q2_0: 64 weights in 18 bytes, 2.25 bits per weight: -1, 0, 1 or 2 times a scale.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      16    codes of two bits, the lowest of a byte first
====== ===== ===================================================================================

weight = d * (code - 1).
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)
    codes = (blocks[:, 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)).reshape(-1, 64)
    values: Floats = d * (codes.astype(np.float32) - np.float32(1))
    return values


FORMAT = Format("Q2_0", 42, 64, 18, _decode, wide_fields=((0, 2),))
