"""BF16: the upper 16 bits of an F32, little-endian. 1 weight in 2 bytes, 16 bits per weight.

8 significant bits and the range of F32. Encoding rounds to nearest even; NaN stays NaN (made quiet).
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    bits = blocks.view("<u2").astype(np.uint32)
    values: Floats = (bits << np.uint32(16)).view(np.float32)
    return values


def _encode(values: Floats) -> Bytes:
    bits = values.view(np.uint32)
    # Adds half a step to odd numbers and a little less to even ones, then cuts: ties go to even.
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(np.isnan(values), bits | np.uint32(0x400000), bits + half)
    raw: Bytes = (rounded >> np.uint32(16)).astype("<u2").view(np.uint8)
    return raw


FORMAT = Format("BF16", 30, 1, 2, _decode, _encode, wide_fields=((0, 2),))
