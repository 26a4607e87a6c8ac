"""IQ3_S: 256 weights in 110 bytes, 3.4375 bits per weight: four an entry of a codebook of 512 patterns.

====== ===== ===================================================================================
offset bytes field
====== ===== ===================================================================================
0      2     d, scale, half precision
2      64    low 8 bits of the entries
66     8     ninth bits of the entries, eight in a byte
74     32    signs, a bit each
106    4     s of 8 sub-blocks of 32, half a byte each, the low one first
====== ===== ===================================================================================

weight = d * (2 s + 1) * sign * level, with the odd levels 1 to 15.

The encoder tries steps for each sub-block, with the best of all entries for every group of four, and rounds the best
steps to odd multiples of d. A squared error counts with the square of the weight plus the mean square of its block.
It is not byte-equal to ggml's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.quants import Bytes, Floats, Format, ratio
from torchless.quants._grids import grid, half, nibbles, scaled, signs_of

_LEVELS = tuple(range(1, 16, 2))


def _decode(blocks: Bytes) -> Floats:
    ninth = np.unpackbits(blocks[:, 66:74], axis=-1, bitorder="little").astype(np.uint16)
    entries = blocks[:, 2:66] | ninth << np.uint16(8)
    weights = grid("IQ3_S", _LEVELS, 4)[entries].reshape(-1, 256) * signs_of(blocks[:, 74:106])
    return scaled(half(blocks[:, :2]), nibbles(blocks[:, 106:]), 1.0, weights)


def _nearest(x: Floats, weights: Floats, steps: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Entries (n, 8, 8) of least weighted error of magnitudes (n, 8, 32) at steps (n, 8), and that error (n, 8)."""
    patterns = grid("IQ3_S", _LEVELS, 4)
    step = steps[:, :, None]
    squares = (weights * step * step).reshape(-1, 4) @ np.square(patterns).T
    costs = squares - (np.float32(2) * weights * x * step).reshape(-1, 4) @ patterns.T
    entries = costs.argmin(axis=1)
    errors = np.take_along_axis(costs, entries[:, None], axis=1)
    return entries.reshape(-1, 8, 8), errors.reshape(-1, 8, 8).sum(axis=2)


def _encode(values: Floats) -> Bytes:
    x = np.abs(values.reshape(-1, 8, 32))
    weights = x * x + np.square(x).mean(axis=(1, 2), keepdims=True)
    peaks = x.max(axis=2)
    trials = [peaks / np.float32(top) for top in np.linspace(12.5, 17.5, 9)]
    errors = [_nearest(x, weights, steps)[1] for steps in trials]
    steps = np.take_along_axis(np.stack(trials), np.argmin(errors, axis=0)[None], axis=0)[0]
    chosen = grid("IQ3_S", _LEVELS, 4)[_nearest(x, weights, steps)[0]].reshape(x.shape)
    steps = ratio((weights * x * chosen).sum(axis=2), (weights * chosen * chosen).sum(axis=2))
    d = (steps.max(axis=1, keepdims=True) / np.float32(31)).astype("<f2")
    wide = d.astype(np.float32)
    scales = np.rint((ratio(steps, wide) - 1) / 2).clip(0, 15)
    entries = _nearest(x, weights, wide * (2 * scales + 1))[0].reshape(-1, 64)
    ninth = np.packbits((entries >> 8).astype(np.uint8), axis=1, bitorder="little")
    signs = np.packbits(values < 0, axis=1, bitorder="little")
    packed = scales.astype(np.uint8)
    joined = packed[:, ::2] | packed[:, 1::2] << np.uint8(4)
    return np.concatenate([d.view(np.uint8), (entries & 255).astype(np.uint8), ninth, signs, joined], axis=1)


FORMAT = Format("IQ3_S", 21, 256, 110, _decode, _encode, wide_fields=((0, 2),))
