"""F64: double precision numbers of 8 bytes; as weights they are rounded to float32."""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format


def _decode(blocks: Bytes) -> Floats:
    values: Floats = blocks.view("<f8").astype(np.float32)
    return values


FORMAT = Format("F64", 28, 1, 8, _decode, wide_fields=((0, 8),))
