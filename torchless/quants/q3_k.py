"""Q3_K: 256 weights in 110 bytes, 3.4375 bits per weight: 16 sub-blocks of 16 with a scale each.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      32    high, upper bit of the weights
32     64    low, lower 2 bits
96     12    b, one 6-bit scale per sub-block
108    2     d, scale of the scales, half precision
====== ===== ===================================================================================

weight = d * (sc - 32) * (q - 4) with q in 0..7. A block has two halves n of 128 weights, a half four runs t
of 32. Weight l of run t: low bits in bits 2t and 2t + 1 of low[32n + l], upper bit in bit 4n + t of high[l].
The scale of sub-block s: low 4 bits in b[s % 8] (lower half of the byte for s < 8, upper half else), upper 2
bits in bits 2 * (s // 4) and the next of b[8 + s % 4].

The encoder fits the scale of each sub-block as Q6_K's does. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio
from torchless.quants.q6_k import fit_scales

_RUN_SHIFTS = np.array([0, 2, 4, 6], np.uint8)
_BIT_SHIFTS = np.arange(8, dtype=np.uint8)


def _decode(blocks: Bytes) -> Floats:
    high = (blocks[:, None, :32] >> _BIT_SHIFTS[:, None]) & np.uint8(1)
    low = (blocks[:, 32:96].reshape(-1, 2, 1, 32) >> _RUN_SHIFTS[:, None]) & np.uint8(3)
    q = (low.reshape(-1, 8, 32) | (high << np.uint8(2))).astype(np.float32) - np.float32(4)
    d = blocks[:, 108:].copy().view("<f2").astype(np.float32)
    step = d * (_unpack_scales(blocks[:, 96:108]).astype(np.float32) - np.float32(32))
    values: Floats = (step[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)
    return values


def _encode(values: Floats) -> Bytes:
    x = values.reshape(-1, 16, 16)
    steps = fit_scales(x, 4)
    peak = np.take_along_axis(steps, np.abs(steps).argmax(axis=1, keepdims=True), axis=1)
    d = (peak / np.float32(-32)).astype("<f2")
    wide = d.astype(np.float32)
    scales = np.rint(ratio(steps, wide)).clip(-32, 31)
    q = np.rint(ratio(x, (wide * scales)[:, :, None])).clip(-4, 3) + 4
    runs = q.astype(np.uint8).reshape(-1, 8, 32)
    low = (runs & np.uint8(3)).reshape(-1, 2, 4, 32) << _RUN_SHIFTS[:, None]
    blocks = np.empty((len(values), 110), np.uint8)
    blocks[:, :32] = np.bitwise_or.reduce((runs >> np.uint8(2)) << _BIT_SHIFTS[:, None], axis=1)
    blocks[:, 32:96] = np.bitwise_or.reduce(low, axis=2).reshape(-1, 64)
    blocks[:, 96:108] = _pack_scales((scales + 32).astype(np.uint8))
    blocks[:, 108:] = d.view(np.uint8)
    return blocks


def _unpack_scales(b: Bytes) -> Bytes:
    low = np.concatenate([b[:, :8] & np.uint8(15), b[:, :8] >> np.uint8(4)], axis=1)
    high = (b[:, None, 8:] >> _RUN_SHIFTS[:, None]) & np.uint8(3)
    scales: Bytes = low | (high.reshape(-1, 16) << np.uint8(4))
    return scales


def _pack_scales(scales: Bytes) -> Bytes:
    low = (scales[:, :8] & np.uint8(15)) | ((scales[:, 8:] & np.uint8(15)) << np.uint8(4))
    high = (scales >> np.uint8(4)).reshape(-1, 4, 4) << _RUN_SHIFTS[:, None]
    return np.concatenate([low, np.bitwise_or.reduce(high, axis=1)], axis=1)


FORMAT = Format("Q3_K", 11, 256, 110, _decode, _encode, wide_fields=((108, 2),))
