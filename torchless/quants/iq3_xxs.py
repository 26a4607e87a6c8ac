"""IQ3_XXS: 256 weights in 98 bytes, 3.0625 bits per weight: four an entry of a codebook of 256 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      64    entries
66     32    per 32 weights 32 bits: four times 7 signs of eight weights, and s in the top four
====== ===== ===================================================================================

weight = d / 4 * (2 s + 1) * sign * level, with the levels 4, 12, 20, 28, 36, 44, 52, 62. Signs are those of IQ2_XXS.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import grid, half, scaled, signs_of, unpack_even_signs


def _decode(blocks: Bytes) -> Floats:
    packed = blocks[:, 66:].copy().view("<u4")
    sevens = packed[:, :, None] >> np.arange(0, 28, 7, dtype=np.uint32)
    levels = (4, 12, 20, 28, 36, 44, 52, 62)
    weights = grid("IQ3_XXS", levels, 4)[blocks[:, 2:66]].reshape(-1, 256)
    weights = weights * signs_of(unpack_even_signs(sevens).reshape(-1, 32))
    return scaled(half(blocks[:, :2]), packed >> 28, 0.25, weights)


FORMAT = Format("IQ3_XXS", 18, 256, 98, _decode, wide_fields=((0, 2), *((66 + 4 * i, 4) for i in range(8))))
