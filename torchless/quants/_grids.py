"""What IQ1, IQ2 and IQ3 share: codebooks (held by the C++ core, `csrc/quants/grids.h`), signs, scales."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from torchless.quants import Bytes, Floats

__all__ = ["IQ2_LEVELS", "grid", "half", "nibbles", "scaled", "signs_of", "unpack_even_signs"]

IQ2_LEVELS = (8, 25, 43)


@cache
def grid(name: str, levels: tuple[int, ...], group: int) -> Floats:
    """The codebook `name` as numbers (entries, group): level i has bits 2i.. (of eight) or 3i.. (of four)."""
    from torchless import _core

    bits = 3 if group == 4 else 2
    entries = np.array(_core.kernels.grid(name), np.uint16)[:, None]
    index = entries >> np.arange(0, bits * group, bits, dtype=np.uint16) & np.uint16((1 << bits) - 1)
    found: Floats = np.array(levels, np.float32)[index]
    return found


def half(raw: Bytes) -> Floats:
    """Half-precision numbers (n, 1) of two bytes each."""
    found: Floats = raw.copy().view("<f2").astype(np.float32)
    return found


def nibbles(raw: Bytes) -> Bytes:
    """Half bytes (n, 2m) of bytes (n, m), the low one first."""
    found: Bytes = np.stack([raw & np.uint8(15), raw >> np.uint8(4)], axis=-1).reshape(len(raw), -1)
    return found


def signs_of(raw: Bytes) -> Floats:
    """Bytes (n, m) -> 1 or -1 (n, 8 m); the lowest bit is the first."""
    bits = np.unpackbits(raw, axis=-1, bitorder="little")
    found: Floats = np.float32(1) - np.float32(2) * bits.astype(np.float32)
    return found


def unpack_even_signs(sevens: npt.NDArray[np.integer]) -> Bytes:
    """Seven signs each -> eight: the last one makes the number of negative weights even."""
    x = (sevens & 127).astype(np.uint8)
    parity = x ^ (x >> np.uint8(4))
    parity ^= parity >> np.uint8(2)
    parity ^= parity >> np.uint8(1)
    found: Bytes = x | (parity << np.uint8(7))
    return found


def scaled(d: Floats, numbers: npt.NDArray[np.integer], factor: float, weights: Floats) -> Floats:
    """d (n, 1) * factor * (2 s + 1) of each sub-block, times weights (n, 256)."""
    steps = (d * np.float32(factor)) * (2 * numbers.astype(np.float32) + 1)
    found: Floats = (steps[:, :, None] * weights.reshape(len(d), numbers.shape[1], -1)).reshape(-1, 256)
    return found
