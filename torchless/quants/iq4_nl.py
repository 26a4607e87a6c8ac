"""IQ4_NL: 32 weights in 18 bytes, 4.5 bits per weight: codes of a table of uneven steps.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision, of either sign
2      16    codes: byte j holds that of weight j (low half) and j + 16 (high half)
====== ===== ===================================================================================

weight[i] = d * TABLE[code[i]]. The steps of the table are finer around zero, where most weights are.

The encoder fits the scale of each block by least squares over a range of trial scales, each weight counting
with its square. It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np

from torchless.quants import Bytes, Floats, Format, ratio

__all__ = ["FORMAT", "TABLE", "decode_codes", "fit_scales", "join_codes", "nearest_codes"]

TABLE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)

_MIDDLES = (TABLE[1:] + TABLE[:-1]) / 2
_TRIAL_SHIFTS = np.linspace(-7, 7, 15, dtype=np.float32)
"""Added to 127, the number of steps from zero to the weight of largest magnitude."""


def decode_codes(packed: Bytes, table: Floats) -> Floats:
    """Numbers (n, 2m) of codes (n, m): low halves of the bytes first, then high ones."""
    values: Floats = table[np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)]
    return values


def join_codes(codes: Bytes) -> Bytes:
    """The inverse order: codes (..., 32) -> bytes (..., 16)."""
    joined: Bytes = codes[..., :16] | (codes[..., 16:] << np.uint8(4))
    return joined


def nearest_codes(steps: Floats) -> Bytes:
    """The code of the entry of `TABLE` that is nearest to each number."""
    return np.searchsorted(_MIDDLES, steps, side="right").astype(np.uint8)


def fit_scales(x: Floats) -> Floats:
    """Scale of each block (..., 32), of either sign, that minimises the weighted squared error."""
    peak = np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)
    weight = x * x
    best = np.zeros(x.shape[:-1], np.float32)
    best_gain = np.zeros(x.shape[:-1], np.float32)
    for sign in (np.float32(1), np.float32(-1)):
        for shift in _TRIAL_SHIFTS:
            q = TABLE[nearest_codes(x * ratio(sign * (shift - np.float32(127)), peak))]
            wq = weight * q
            sum_qq, sum_xq = (wq * q).sum(axis=-1), (wq * x).sum(axis=-1)
            gain = ratio(sum_xq * sum_xq, sum_qq)  # What this scale takes off the error.
            better = gain > best_gain
            best_gain = np.where(better, gain, best_gain)
            best = np.where(better, ratio(sum_xq, sum_qq), best)
    return best


def _decode(blocks: Bytes) -> Floats:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    values: Floats = scale * decode_codes(blocks[:, 2:], TABLE)
    return values


def _encode(values: Floats) -> Bytes:
    scale = fit_scales(values).astype("<f2")[:, None]
    codes = nearest_codes(ratio(values, scale.astype(np.float32)))
    return np.concatenate([scale.view(np.uint8), join_codes(codes)], axis=1)


FORMAT = Format("IQ4_NL", 20, 32, 18, _decode, _encode, wide_fields=((0, 2),))
