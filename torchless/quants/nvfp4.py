"""NVFP4: 64 weights in 36 bytes, 4.5 bits per weight: floats of four bits with a float of eight bits per 16.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      4     scales of the four sub-blocks of 16: E4M3 without its sign
4      32    codes, 8 bytes for each sub-block: byte j holds that of weight j (low half) and j + 8 (high half)
====== ===== ===================================================================================

weight = scale / 2 * TABLE[code], with TABLE of MXFP4. The scale 0x7f counts as 0; the top bit of a scale says nothing.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format
from torchless.quants.iq4_nl import decode_codes
from torchless.quants.mxfp4 import TABLE


def _half_scales(raw: Bytes) -> Floats:
    exponents, mantissas = (
        (raw >> np.uint8(3) & np.uint8(15)).astype(np.int32),
        (raw & np.uint8(7)).astype(np.float32),
    )
    normal = np.ldexp(mantissas + np.float32(8), exponents - 11)
    found = np.where(exponents == 0, np.ldexp(mantissas, -10), normal)
    scales: Floats = np.where(raw == 0x7F, np.float32(0), found).astype(np.float32)
    return scales


def _decode(blocks: Bytes) -> Floats:
    numbers = decode_codes(blocks[:, 4:].reshape(-1, 4, 8), TABLE)
    values: Floats = (_half_scales(blocks[:, :4])[:, :, None] * numbers).reshape(-1, 64)
    return values


FORMAT = Format("NVFP4", 40, 64, 36, _decode)
