"""Q6_K: 256 weights in 210 bytes, 6.5625 bits per weight: 16 sub-blocks of 16 with a scale each.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      128   ql, low 4 bits of the weights
128    64    qh, upper 2 bits
192    16    sc, one signed byte per sub-block
208    2     d, scale of the scales, half precision
====== ===== ===================================================================================

weight = d * sc * (q - 32) with q in 0..63. A block has two halves n of 128 weights, a half four runs t of 32.
Weight l of run t: low bits in ql[64n + 32 * (t & 1) + l] (lower half of the byte for t < 2, upper half
else), upper bits in bits 2t and 2t + 1 of qh[32n + l].

The encoder fits the scale of each sub-block by weighted least squares over a range of trial scales, each
weight counting with its square. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio

_TRIAL_SHIFTS = np.linspace(-0.9, 0.9, 19, dtype=np.float32)
"""Added to 32 (Q3_K: 4), the steps from zero to the weight of largest magnitude."""


def _decode(blocks: Bytes) -> Floats:
    ql = blocks[:, :128].reshape(-1, 2, 1, 2, 32)
    qh = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([ql & np.uint8(15), ql >> np.uint8(4)], axis=2).reshape(-1, 2, 4, 32)
    high = (qh >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)) & np.uint8(3)
    q = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    d = blocks[:, 208:].copy().view("<f2").astype(np.float32)
    step = d * blocks[:, 192:208].view(np.int8).astype(np.float32)
    values: Floats = (step[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)
    return values


def _encode(values: Floats) -> Bytes:
    x = values.reshape(-1, 16, 16)
    steps = fit_scales(x, 32)
    peak = np.take_along_axis(steps, np.abs(steps).argmax(axis=1, keepdims=True), axis=1)
    d = (peak / np.float32(-128)).astype("<f2")
    wide = d.astype(np.float32)
    scales = np.rint(ratio(steps, wide)).clip(-128, 127).astype(np.int8)
    step = (wide * scales.astype(np.float32))[:, :, None]
    q = np.rint(ratio(x, step)).clip(-32, 31).astype(np.int8) + np.int8(32)
    runs = q.astype(np.uint8).reshape(-1, 2, 4, 32)
    blocks = np.empty((len(values), 210), np.uint8)
    low, high = runs & np.uint8(15), runs >> np.uint8(4)
    blocks[:, :128] = (low[:, :, :2] | (low[:, :, 2:] << np.uint8(4))).reshape(-1, 128)
    shifted = high << np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    blocks[:, 128:192] = np.bitwise_or.reduce(shifted, axis=2).reshape(-1, 64)
    blocks[:, 192:208] = scales.view(np.uint8)
    blocks[:, 208:] = d.view(np.uint8)
    return blocks


def fit_scales(x: Floats, top: int) -> Floats:
    """Scale of each sub-block (..., 16), of either sign, that minimises the weighted squared error.

    Steps are -top..top - 1. Q3_K has the same.
    """
    peak = np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)
    weight = x * x
    best = np.zeros(x.shape[:-1], np.float32)
    best_gain = np.zeros(x.shape[:-1], np.float32)
    for shift in _TRIAL_SHIFTS:
        q = np.rint(x * ratio(-(np.float32(top) + shift), peak)).clip(-top, top - 1)
        wq = weight * q
        sum_qq, sum_xq = (wq * q).sum(axis=-1), (wq * x).sum(axis=-1)
        gain = ratio(sum_xq * sum_xq, sum_qq)  # What this scale takes off the error.
        better = gain > best_gain
        best_gain = np.where(better, gain, best_gain)
        best = np.where(better, sum_xq / sum_qq, best)
    return best


FORMAT = Format("Q6_K", 14, 256, 210, _decode, _encode, wide_fields=((208, 2),))
