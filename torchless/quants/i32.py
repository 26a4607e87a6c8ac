"""I32: integers of 4 bytes; as weights they are rounded to float32."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    values: Floats = blocks.view("<i4").astype(np.float32)
    return values


FORMAT = Format("I32", 26, 1, 4, _decode, wide_fields=((0, 4),))
