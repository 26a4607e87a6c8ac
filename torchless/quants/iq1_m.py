"""IQ1_M: 256 weights in 56 bytes, 1.75 bits per weight: eight an entry of a codebook of 2048 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      32    low 8 bits of the entries
32     16    half a byte per entry: its high 3 bits, direction of the shift
48     8     four numbers of 16 bits: four times s (3 bits) of a sub-block of 16, and 4 bits of d, lowest first
====== ===== ===================================================================================

weight = d * (2 s + 1) * (level + shift) as in IQ1_S; a group of eight has a shift of its own. d is half precision.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import grid, nibbles, scaled


def _decode(blocks: Bytes) -> Floats:
    packed = blocks[:, 48:].copy().view("<u2")
    parts = packed >> np.uint16(12) << np.arange(0, 16, 4, dtype=np.uint16)
    d = np.bitwise_or.reduce(parts, axis=1, keepdims=True).astype("<u2").view("<f2").astype(np.float32)
    numbers = (packed[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16) & np.uint16(7)).reshape(-1, 16)
    high = nibbles(blocks[:, 32:48])
    entries = blocks[:, :32] | (high & np.uint8(7)).astype(np.uint16) << np.uint16(8)
    shifts = np.where(high >> 3, np.float32(-0.125), np.float32(0.125))
    weights = grid("IQ1", (-1, 0, 1), 8)[entries].reshape(-1, 32, 8) + shifts[:, :, None]
    return scaled(d, numbers, 1.0, weights.reshape(-1, 256))


FORMAT = Format("IQ1_M", 29, 256, 56, _decode, wide_fields=tuple((48 + 2 * i, 2) for i in range(4)))
