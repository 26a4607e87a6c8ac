"""F32: IEEE 754 single precision, little-endian. 1 weight in 4 bytes, 32 bits per weight, exact."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    return blocks.view("<f4").astype(np.float32, copy=False)


def _encode(values: Floats) -> Bytes:
    return values.astype("<f4", copy=False).view(np.uint8)


FORMAT = Format("F32", 0, 1, 4, _decode, _encode, wide_fields=((0, 4),))
