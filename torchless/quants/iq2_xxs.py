"""IQ2_XXS: 256 weights in 66 bytes, 2.0625 bits per weight: eight an entry of a codebook of 256 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      64    per 32 weights: four entries of 8 bits; 32 bits: four times 7 signs, and s in the top four
====== ===== ===================================================================================

weight = d / 8 * (2 s + 1) * sign * level, with the levels 8, 25, 43 of the patterns in `csrc/quants/grids.h`. The
eighth sign of a group makes the number of negative ones even.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import IQ2_LEVELS, grid, half, scaled, signs_of, unpack_even_signs


def _decode(blocks: Bytes) -> Floats:
    parts = blocks[:, 2:].reshape(-1, 8, 8)
    packed = parts[:, :, 4:].copy().view("<u4")
    sevens = packed >> np.arange(0, 28, 7, dtype=np.uint32)
    weights = grid("IQ2_XXS", IQ2_LEVELS, 8)[parts[:, :, :4]].reshape(-1, 256)
    weights = weights * signs_of(unpack_even_signs(sevens).reshape(-1, 32))
    return scaled(half(blocks[:, :2]), packed[:, :, 0] >> 28, 0.125, weights)


FORMAT = Format(
    "IQ2_XXS", 16, 256, 66, _decode, wide_fields=((0, 2), *((2 + 8 * i + 4, 4) for i in range(8)))
)
