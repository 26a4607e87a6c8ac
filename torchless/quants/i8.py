"""I8: integers of 1 byte; as weights they are rounded to float32."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    values: Floats = blocks.view("<i1").astype(np.float32)
    return values


FORMAT = Format("I8", 24, 1, 1, _decode)
