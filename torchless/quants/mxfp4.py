"""MXFP4: 32 weights in 17 bytes, 4.25 bits per weight: floats of four bits with one power of two as scale.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      1     e, exponent of the scale (E8M0)
1      16    codes: byte j holds that of weight j (low half) and j + 16 (high half)
====== ===== ===================================================================================

weight[i] = 2^(e - 128) * TABLE[code[i]]; the table holds twice the values of E2M1, a float with a sign, two
bits of exponent and one of mantissa. Standard: OCP Microscaling Formats (MX) 1.0.

The encoder takes the exponent of the weight of largest magnitude, as ggml's reference does.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio
from torchless.quants.iq4_nl import decode_codes, join_codes

TABLE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)

_MIDDLES = (TABLE[1:8] + TABLE[:7]) / 2


def _scales(exponents: Bytes) -> Floats:
    """2^(e - 128) as float32; the two smallest are subnormal."""
    e = exponents.astype(np.uint32)
    small = np.uint32(0x00200000) << np.minimum(e, np.uint32(1))
    scales: Floats = np.where(e < 2, small, (e - np.uint32(1)) << np.uint32(23)).view(np.float32)
    return scales


def _decode(blocks: Bytes) -> Floats:
    values: Floats = _scales(blocks[:, :1]) * decode_codes(blocks[:, 1:], TABLE)
    return values


def _encode(values: Floats) -> Bytes:
    peak = np.abs(values).max(axis=1, keepdims=True)
    _, exponents = np.frexp(peak)  # peak = 0.5 .. 1 * 2^exponent; the largest value of E2M1 has exponent 2.
    e = np.where(peak > 0, exponents - 3 + 127, 0).clip(0, 254).astype(np.uint8)
    steps = ratio(values, _scales(e))
    codes = np.searchsorted(_MIDDLES, np.abs(steps), side="left").astype(np.uint8)
    codes += np.where((steps < 0) & (codes > 0), np.uint8(8), np.uint8(0))
    return np.concatenate([e, join_codes(codes)], axis=1)


FORMAT = Format("MXFP4", 39, 32, 17, _decode, _encode)
