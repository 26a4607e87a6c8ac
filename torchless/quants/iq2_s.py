"""IQ2_S: 256 weights in 82 bytes, 2.5625 bits per weight: eight an entry of a codebook of 1024 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      32    low 8 bits of the entries
34     32    signs, a bit each
66     8     high 2 bits of the entries, four in a byte
74     8     s of 16 sub-blocks of 16, half a byte each, the low one first
====== ===== ===================================================================================

weight = d / 8 * (2 s + 1) * sign * level, with the levels of IQ2_XXS.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import IQ2_LEVELS, grid, half, nibbles, scaled, signs_of


def _decode(blocks: Bytes) -> Floats:
    high = blocks[:, 66:74, None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
    entries = blocks[:, 2:34] | high.reshape(-1, 32).astype(np.uint16) << np.uint16(8)
    weights = grid("IQ2_S", IQ2_LEVELS, 8)[entries].reshape(-1, 256) * signs_of(blocks[:, 34:66])
    return scaled(half(blocks[:, :2]), nibbles(blocks[:, 74:]), 0.125, weights)


FORMAT = Format("IQ2_S", 22, 256, 82, _decode, wide_fields=((0, 2),))
