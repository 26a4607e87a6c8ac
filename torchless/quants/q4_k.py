"""Q4_K: 256 weights in 144 bytes, 4.5 bits per weight: 8 sub-blocks of 32 with a scale and a minimum each.

====== ===== ================================================================================
offset bytes field
====== ===== ================================================================================
0      2     d, scale of the scales, half precision
2      2     dmin, scale of the minimums, half precision
4      12    b, eight 6-bit scales sc and eight 6-bit minimums m
16     128   q, 4 bits per weight: byte 32c + l holds weight 64c + l (low) and 64c + 32 + l (high)
====== ===== ================================================================================

weight = d * sc[s] * q - dmin * m[s] in sub-block s. The 6-bit numbers: for s < 4, sc[s] = b[s] & 63 and
m[s] = b[s + 4] & 63; for s >= 4 the low 4 bits are the two halves of b[s + 4] (sc low, m high) and the upper
2 bits are the upper 2 bits of b[s - 4] (for sc) and b[s] (for m).

The encoder fits each sub-block by weighted least squares over a range of trial scales; large weights count
more. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio

_TRIAL_SHIFTS = np.linspace(-1.0, 1.0, 21, dtype=np.float32)
"""Added to 15 (Q5_K: 31, Q2_K: 3), the steps from the lowest to the highest weight."""


def _decode(blocks: Bytes) -> Floats:
    packed = blocks[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=2).reshape(-1, 8, 32)
    return scale_sub_blocks(blocks[:, :16], q)


def _encode(values: Floats) -> Bytes:
    scales, q = quantise_sub_blocks(values, 15)
    pairs = q.reshape(-1, 4, 2, 32)
    blocks = np.empty((len(values), 144), np.uint8)
    blocks[:, :16] = scales
    blocks[:, 16:] = (pairs[:, :, 0] | (pairs[:, :, 1] << np.uint8(4))).reshape(-1, 128)
    return blocks


def scale_sub_blocks(scales: Bytes, q: Bytes) -> Floats:
    """Weights (n, 256) from the first 16 bytes of blocks (n, 16) and q (n, 8, 32). Q5_K has the same."""
    d = scales[:, 0:2].copy().view("<f2").astype(np.float32)
    dmin = scales[:, 2:4].copy().view("<f2").astype(np.float32)
    factors, minimums = _unpack_six_bits(scales[:, 4:])
    step = (d * factors.astype(np.float32))[:, :, None]
    offset = (dmin * minimums.astype(np.float32))[:, :, None]
    values: Floats = (step * q.astype(np.float32) - offset).reshape(-1, 256)
    return values


def quantise_sub_blocks(values: Floats, top: int) -> tuple[Bytes, Bytes]:
    """The first 16 bytes of blocks and q (n, 8, 32) in 0..top for weights (n, 256)."""
    x = values.reshape(-1, 8, 32)
    steps, offsets = fit_scale_and_minimum(x, np.float32(top))
    d = (steps.max(axis=1, keepdims=True) / np.float32(63)).astype("<f2")
    dmin = (offsets.max(axis=1, keepdims=True) / np.float32(63)).astype("<f2")
    scales, minimums = _six_bits(steps, d), _six_bits(offsets, dmin)
    step = (d.astype(np.float32) * scales.astype(np.float32))[:, :, None]
    offset = (dmin.astype(np.float32) * minimums.astype(np.float32))[:, :, None]
    q = np.rint(ratio(x + offset, step)).clip(0, top).astype(np.uint8)
    header = [d.view(np.uint8), dmin.view(np.uint8), _pack_six_bits(scales, minimums)]
    return np.concatenate(header, axis=1), q


def fit_scale_and_minimum(x: Floats, top: np.float32) -> tuple[Floats, Floats]:
    """Scale and (positive) minimum of each sub-block (..., n) that minimise the weighted squared error."""
    weight = np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + np.abs(x)
    high = x.max(axis=-1)
    best_low = np.minimum(x.min(axis=-1), np.float32(0))
    best_scale = (high - best_low) / top
    best_error = np.full(best_low.shape, np.inf, np.float32)
    sum_w, sum_x = weight.sum(axis=-1), (weight * x).sum(axis=-1)
    for shift in _TRIAL_SHIFTS:
        # Each trial starts from the best minimum so far.
        inverse = ratio(top + shift, high - best_low)
        q = np.rint((x - best_low[..., None]) * inverse[..., None]).clip(0, top)
        wq = weight * q
        sum_q, sum_qq, sum_xq = wq.sum(axis=-1), (wq * q).sum(axis=-1), (wq * x).sum(axis=-1)
        determinant = sum_w * sum_qq - sum_q * sum_q
        scale = (sum_w * sum_xq - sum_q * sum_x) / determinant
        offset = (sum_qq * sum_x - sum_q * sum_xq) / determinant
        above = offset > 0  # The format can only subtract a minimum: fit the scale alone.
        scale, offset = np.where(above, sum_xq / sum_qq, scale), np.where(above, np.float32(0), offset)
        error = (weight * (scale[..., None] * q + offset[..., None] - x) ** 2).sum(axis=-1)
        better = (determinant > 0) & (scale > 0) & (error < best_error)
        best_error = np.where(better, error, best_error)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, offset, best_low)
    return best_scale, -best_low


def _six_bits(numbers: Floats, unit: Floats) -> Bytes:
    """The numbers in multiples of `unit`, rounded to 0..63."""
    return np.rint(ratio(numbers, unit.astype(np.float32))).clip(0, 63).astype(np.uint8)


def _unpack_six_bits(b: Bytes) -> tuple[Bytes, Bytes]:
    first, second, third = b[:, 0:4], b[:, 4:8], b[:, 8:12]
    six, four, two = np.uint8(63), np.uint8(4), np.uint8(6)
    scales = np.concatenate([first & six, (third & np.uint8(15)) | ((first >> two) << four)], axis=1)
    minimums = np.concatenate([second & six, (third >> four) | ((second >> two) << four)], axis=1)
    return scales, minimums


def _pack_six_bits(scales: Bytes, minimums: Bytes) -> Bytes:
    four, two = np.uint8(4), np.uint8(6)
    first = scales[:, :4] | ((scales[:, 4:] >> four) << two)
    second = minimums[:, :4] | ((minimums[:, 4:] >> four) << two)
    third = (scales[:, 4:] & np.uint8(15)) | ((minimums[:, 4:] & np.uint8(15)) << four)
    return np.concatenate([first, second, third], axis=1)


FORMAT = Format("Q4_K", 12, 256, 144, _decode, _encode, wide_fields=((0, 2), (2, 2)))
