"""IQ4_XS: 256 weights in 136 bytes, 4.25 bits per weight: the codes of IQ4_NL, a 6-bit scale per 32 weights.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale of the scales, half precision
2      2     high, upper 2 bits of the scales: sub-block s has bits 2s and 2s + 1 of the 16-bit number
4      4     low, lower 4 bits of the scales: byte i holds those of sub-blocks 2i (low half) and 2i + 1
8      128   codes, 16 bytes for each sub-block, in the order of IQ4_NL
====== ===== ===================================================================================

weight = d * (sc - 32) * TABLE[code], with TABLE of IQ4_NL and sc in 0..63 the scale of the sub-block.

The encoder fits the scale of each sub-block as IQ4_NL's does. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio
from torchless.quants.iq4_nl import TABLE, decode_codes, fit_scales, join_codes, nearest_codes

_HIGH_SHIFTS = np.arange(0, 16, 2, dtype=np.uint16)


def _decode(blocks: Bytes) -> Floats:
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)
    high = (blocks[:, 2:4].copy().view("<u2") >> _HIGH_SHIFTS).astype(np.uint8) & np.uint8(3)
    packed = blocks[:, 4:8]
    low = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1).reshape(-1, 8)
    scales = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    numbers = decode_codes(blocks[:, 8:].reshape(-1, 8, 16), TABLE)
    values: Floats = ((d * scales)[:, :, None] * numbers).reshape(-1, 256)
    return values


def _encode(values: Floats) -> Bytes:
    x = values.reshape(-1, 8, 32)
    steps = fit_scales(x)
    peak = np.take_along_axis(steps, np.abs(steps).argmax(axis=1, keepdims=True), axis=1)
    d = (peak / np.float32(-32)).astype("<f2")
    wide = d.astype(np.float32)
    scales = np.rint(ratio(steps, wide)).clip(-32, 31)
    codes = nearest_codes(ratio(x, (wide * scales)[:, :, None]))
    stored = (scales + 32).astype(np.uint8)
    high = np.bitwise_or.reduce((stored >> np.uint8(4)).astype("<u2") << _HIGH_SHIFTS, axis=1, keepdims=True)
    low = (stored[:, ::2] & np.uint8(15)) | (stored[:, 1::2] << np.uint8(4))
    header = [d.view(np.uint8), high.astype("<u2").view(np.uint8), low]
    return np.concatenate([*header, join_codes(codes).reshape(-1, 128)], axis=1)


FORMAT = Format("IQ4_XS", 23, 256, 136, _decode, _encode, wide_fields=((0, 2), (2, 2)))
