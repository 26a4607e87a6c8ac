"""I16: integers of 2 bytes; as weights they are rounded to float32."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    values: Floats = blocks.view("<i2").astype(np.float32)
    return values


FORMAT = Format("I16", 25, 1, 2, _decode, wide_fields=((0, 2),))
