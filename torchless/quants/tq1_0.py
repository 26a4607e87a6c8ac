"""TQ1_0: 256 weights in 54 bytes, 1.6875 bits per weight: -1, 0 or 1, five in a byte.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      32    digits k = 0..4 of byte i: weights 32 k + i
32     16    digits k = 0..4 of byte i: weights 160 + 16 k + i
48     4     digits k = 0..3 of byte i: weights 240 + 4 k + i
52     2     d, scale, half precision
====== ===== ===================================================================================

weight = d * (digit - 1). A byte v is a fraction v / 256 to base 3: digit k = 3 * (3^k v mod 256) / 256, rounded down.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format

_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]


def _decode(blocks: Bytes) -> Floats:
    parts = [
        blocks[:, None, :32] * _POWERS,
        blocks[:, None, 32:48] * _POWERS,
        blocks[:, None, 48:52] * _POWERS[:4],
    ]
    fractions = np.concatenate([part.reshape(len(blocks), -1) for part in parts], axis=1)
    digits = fractions.astype(np.uint16) * np.uint16(3) >> np.uint16(8)
    d = blocks[:, 52:].copy().view("<f2").astype(np.float32)
    values: Floats = d * (digits.astype(np.float32) - np.float32(1))
    return values


FORMAT = Format("TQ1_0", 34, 256, 54, _decode, wide_fields=((52, 2),))
