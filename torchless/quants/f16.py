"""F16: IEEE 754 half precision, little-endian. 1 weight in 2 bytes, 16 bits per weight.

11 significant bits; largest number 65504, smallest 6e-8. Encoding rounds to nearest even; larger numbers
become infinite.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _encode(values: Floats) -> Bytes:
    return values.astype("<f2").view(np.uint8)


FORMAT = Format("F16", 1, 1, 2, _decode, _encode, wide_fields=((0, 2),))
