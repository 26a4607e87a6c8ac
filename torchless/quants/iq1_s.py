"""IQ1_S: 256 weights in 50 bytes, 1.5625 bits per weight: eight an entry of a codebook of 2048 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      32    low 8 bits of the entries
34     16    per 32 weights 16 bits: high 3 bits of four entries, s in three bits, direction of the shift
====== ===== ===================================================================================

weight = d * (2 s + 1) * (level + shift), with levels of -1, 0, 1 and a shift of 1/8, or -1/8 where the top bit is set.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import grid, half, scaled


def _decode(blocks: Bytes) -> Floats:
    high = blocks[:, 34:].copy().view("<u2")
    tops = high[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16) & np.uint16(7)
    entries = blocks[:, 2:34] | tops.reshape(-1, 32) << np.uint16(8)
    shifts = np.where(high >> 15, np.float32(-0.125), np.float32(0.125))
    weights = grid("IQ1", (-1, 0, 1), 8)[entries].reshape(-1, 8, 32) + shifts[:, :, None]
    return scaled(half(blocks[:, :2]), high >> 12 & 7, 1.0, weights.reshape(-1, 256))


FORMAT = Format("IQ1_S", 19, 256, 50, _decode, wide_fields=((0, 2), *((34 + 2 * i, 2) for i in range(8))))
