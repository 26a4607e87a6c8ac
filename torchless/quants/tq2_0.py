"""TQ2_0: 256 weights in 66 bytes, 2.0625 bits per weight: -1, 0 or 1 in two bits.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      64    codes: byte 32 n + l holds those of weights 128 n + 32 t + l, t = 0..3, lowest bits first
64     2     d, scale, half precision
====== ===== ===================================================================================

weight = d * (code - 1).
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format

_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)[:, None]


def _decode(blocks: Bytes) -> Floats:
    d = blocks[:, 64:].copy().view("<f2").astype(np.float32)
    codes = (blocks[:, :64].reshape(-1, 2, 1, 32) >> _SHIFTS & np.uint8(3)).reshape(-1, 256)
    values: Floats = d * (codes.astype(np.float32) - np.float32(1))
    return values


FORMAT = Format("TQ2_0", 35, 256, 66, _decode, wide_fields=((64, 2),))
