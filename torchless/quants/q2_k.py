"""Q2_K: 256 weights in 84 bytes, 2.625 bits per weight: 16 sub-blocks of 16 with a scale and a minimum each.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      16    one byte per sub-block: 4-bit scale sc (low half) and 4-bit minimum m (high half)
16     64    q, 2 bits per weight
80     2     d, scale of the scales, half precision
82     2     dmin, scale of the minimums, half precision
====== ===== ===================================================================================

weight = d * sc * q - dmin * m. A block has two halves n of 128 weights, a half four runs t of 32. Weight l of
run t is in bits 2t and 2t + 1 of byte 32n + l.

The encoder fits each sub-block as Q4_K's does. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio
from torchless.quants.q4_k import fit_scale_and_minimum

_RUN_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def _decode(blocks: Bytes) -> Floats:
    d = blocks[:, 80:82].copy().view("<f2").astype(np.float32)
    dmin = blocks[:, 82:].copy().view("<f2").astype(np.float32)
    scales, minimums = blocks[:, :16] & np.uint8(15), blocks[:, :16] >> np.uint8(4)
    q = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> _RUN_SHIFTS[:, None]) & np.uint8(3)
    step = (d * scales.astype(np.float32))[:, :, None]
    offset = (dmin * minimums.astype(np.float32))[:, :, None]
    values: Floats = (step * q.reshape(-1, 16, 16).astype(np.float32) - offset).reshape(-1, 256)
    return values


def _encode(values: Floats) -> Bytes:
    x = values.reshape(-1, 16, 16)
    steps, offsets = fit_scale_and_minimum(x, np.float32(3))
    d = (steps.max(axis=1, keepdims=True) / np.float32(15)).astype("<f2")
    dmin = (offsets.max(axis=1, keepdims=True) / np.float32(15)).astype("<f2")
    scales, minimums = _four_bits(steps, d), _four_bits(offsets, dmin)
    step = (d.astype(np.float32) * scales.astype(np.float32))[:, :, None]
    offset = (dmin.astype(np.float32) * minimums.astype(np.float32))[:, :, None]
    q = np.rint(ratio(x + offset, step)).clip(0, 3).astype(np.uint8).reshape(-1, 2, 4, 32)
    blocks = np.empty((len(values), 84), np.uint8)
    blocks[:, :16] = scales | (minimums << np.uint8(4))
    blocks[:, 16:80] = np.bitwise_or.reduce(q << _RUN_SHIFTS[:, None], axis=2).reshape(-1, 64)
    blocks[:, 80:82], blocks[:, 82:] = d.view(np.uint8), dmin.view(np.uint8)
    return blocks


def _four_bits(numbers: Floats, unit: Floats) -> Bytes:
    """The numbers in multiples of `unit`, rounded to 0..15."""
    return np.rint(ratio(numbers, unit.astype(np.float32))).clip(0, 15).astype(np.uint8)


FORMAT = Format("Q2_K", 10, 256, 84, _decode, _encode, wide_fields=((80, 2), (82, 2)))
