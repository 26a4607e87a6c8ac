"""IQ2_XS: 256 weights in 74 bytes, 2.3125 bits per weight: eight an entry of a codebook of 512 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      64    32 numbers of 16 bits: an entry of 9 bits, then 7 signs
66     8     s of 16 sub-blocks of 16, half a byte each, the low one first
====== ===== ===================================================================================

weight = d / 8 * (2 s + 1) * sign * level, as in IQ2_XXS.
"""

from __future__ import annotations

from torchless.quants import Bytes, Floats, Format
from torchless.quants._grids import IQ2_LEVELS, grid, half, nibbles, scaled, signs_of, unpack_even_signs


def _decode(blocks: Bytes) -> Floats:
    groups = blocks[:, 2:66].copy().view("<u2")
    weights = grid("IQ2_XS", IQ2_LEVELS, 8)[groups & 511].reshape(-1, 256)
    weights = weights * signs_of(unpack_even_signs(groups >> 9))
    return scaled(half(blocks[:, :2]), nibbles(blocks[:, 66:]), 0.125, weights)


FORMAT = Format("IQ2_XS", 17, 256, 74, _decode, wide_fields=tuple((2 * i, 2) for i in range(33)))
