"""I64: integers of 8 bytes; as weights they are rounded to float32."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    values: Floats = blocks.view("<i8").astype(np.float32)
    return values


FORMAT = Format("I64", 27, 1, 8, _decode, wide_fields=((0, 8),))
