"""Random weights as stored blocks, with scale fields that a trained model could have.

Quantising random floats would take minutes for a model of a billion weights. Here the bytes of the blocks
themselves are random and only the scale fields are set, so that the decoded weights have mean 0 and about
the wanted standard deviation. Bytes left random in a scale field would decode to huge numbers, NaN or
denormals, and denormals slow some kernels down: such a file measures nothing. Every stored half-precision
scale is a normal number for rows of up to 16384 weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_TYPES", "BlockType", "random_blocks"]

Bytes = npt.NDArray[np.uint8]
SetScales = Callable[[Bytes, float], None]

_CHUNK_BYTES = 8 << 20  # Fits the last-level cache of most machines, and bounds the memory that a file takes.


@dataclass(frozen=True, slots=True)
class BlockType:
    """A storage type as far as random data is concerned.

    Attributes:
        num_weights: weights in a block.
        num_bytes: bytes of a block.
        set_scales: given random blocks (n, num_bytes) and a standard deviation, sets the scale fields.
    """

    num_weights: int
    num_bytes: int
    set_scales: SetScales


def random_blocks(block_type: BlockType, num_weights: int, std: float, seed: list[int]) -> Iterator[Bytes]:
    """Yields the stored bytes of `num_weights` random weights, in chunks of a few megabytes.

    The same arguments give the same bytes on every machine and NumPy version (raw bits of SFC64).
    """
    num_blocks = num_weights // block_type.num_weights
    blocks_per_chunk = max(1, _CHUNK_BYTES // block_type.num_bytes)
    generator = np.random.SFC64(np.random.SeedSequence(seed))
    for start in range(0, num_blocks, blocks_per_chunk):
        count = min(blocks_per_chunk, num_blocks - start)
        size = count * block_type.num_bytes
        raw = generator.random_raw((size + 7) // 8).astype("<u8", copy=False).view(np.uint8)[:size]
        block_type.set_scales(raw.reshape(count, block_type.num_bytes), std)
        yield raw


def _floats(bits_type: str, sign_and_mantissa: int, mantissa_bits: int, bias: int) -> SetScales:
    """Keeps random sign and mantissa and sets one exponent: uniform in +-[2^e, 2^(e+1)), rms 1.53 * 2^e."""

    def set_exponent(blocks: Bytes, std: float) -> None:
        exponent = round(math.log2(std / math.sqrt(7 / 3)))
        words = blocks.reshape(-1).view(bits_type)
        words &= sign_and_mantissa
        words |= (exponent + bias) << mantissa_bits

    return set_exponent


def _set_half(blocks: Bytes, offset: int, value: float, *, signed: bool) -> None:
    """Sets the half-precision field at `offset` to `value` * (0.75 to 1.25) and, if `signed`, either sign."""
    field = np.ndarray(blocks.shape[0], "<u2", blocks, offset, (blocks.shape[1],))
    steps = np.arange(256)
    table = (value * (0.75 + (steps & 127) / 256) * np.where(signed & (steps >= 128), -1, 1)).astype("<f2")
    field[:] = table.view("<u2")[field & 255]


def _q8_0(blocks: Bytes, std: float) -> None:
    quants = blocks[:, 2:].view(np.int8)
    np.maximum(quants, -127, out=quants)  # A quantiser never writes -128.
    _set_half(blocks, 0, std / 73.6, signed=False)


def _q4_0(blocks: Bytes, std: float) -> None:
    _set_half(blocks, 0, std / 4.64, signed=True)  # -8..7 has mean -0.5; the sign of the scale cancels it.


def _q4_1(blocks: Bytes, std: float) -> None:
    # 0..15 has mean 7.5: the minimum cancels it, and its own spread adds to that of the weights.
    value = std / 4.88
    _set_half(blocks, 0, value, signed=False)
    _set_half(blocks, 2, -7.5 * value, signed=False)


def _q5_0(blocks: Bytes, std: float) -> None:
    _set_half(blocks, 0, std / 9.35, signed=True)  # As Q4_0, with -16..15.


def _q5_1(blocks: Bytes, std: float) -> None:
    value = std / 9.88
    _set_half(blocks, 0, value, signed=False)
    _set_half(blocks, 2, -15.5 * value, signed=False)


def _q2_k(blocks: Bytes, std: float) -> None:
    # scales[16] at 0: all 4-bit scales and minimums are 8..15; d and dmin at 80.
    blocks[:, :16] |= 0x88
    value = std / 14.56
    _set_half(blocks, 80, value, signed=False)
    _set_half(blocks, 82, 1.5 * value, signed=False)


def _q3_k(blocks: Bytes, std: float) -> None:
    # b[12] at 96: 6-bit scales of 40..47, which stand for 8..15; the sign of d at 108 cancels the mean.
    blocks[:, 96:104] |= 0x88
    blocks[:, 104:108] = 0xAA
    _set_half(blocks, 108, std / 27.7, signed=True)


def _q4_k(blocks: Bytes, std: float) -> None:
    # d, dmin, scales[12]: all 6-bit scales and minimums are 8..15 (upper two bits 00).
    scales = blocks[:, 4:12]
    scales &= 0x07
    scales |= 0x08
    blocks[:, 12:16] |= 0x88
    value = std / 62.4  # sqrt(scale^2 * var(quant) + var(7.5 * (scale - minimum))), both over random fields.
    _set_half(blocks, 0, value, signed=False)
    _set_half(blocks, 2, 7.5 * value, signed=False)


def _q5_k(blocks: Bytes, std: float) -> None:
    # As Q4_K, with 6-bit scales and minimums of 4..7.
    scales = blocks[:, 4:12]
    scales &= 0x03
    scales |= 0x04
    lower = blocks[:, 12:16]
    lower &= 0x33
    lower |= 0x44
    value = std / 60.4
    _set_half(blocks, 0, value, signed=False)
    _set_half(blocks, 2, 15.5 * value, signed=False)


def _q6_k(blocks: Bytes, std: float) -> None:
    # scales[16] at 192: signed bytes of magnitude 3..6, either sign; d at 208.
    scales = blocks[:, 192:208]
    signs = scales.view(np.int8) >> 7
    scales &= 3
    scales += 3
    signed = scales.view(np.int8)
    np.subtract(signed ^ signs, signs, out=signed)
    _set_half(blocks, 208, std / (18.5 * 4.64), signed=False)


def _iq4_nl(blocks: Bytes, std: float) -> None:
    _set_half(blocks, 0, std / 68.0, signed=True)  # The sign of the scale cancels the table's mean.


def _iq4_xs(blocks: Bytes, std: float) -> None:
    # high, low[4] at 2: scales of 31 (three in four) and 30, which stand for -1 and -2.
    blocks[:, 2:4] = 0x55
    low = blocks[:, 4:8]
    low |= low >> 1
    low |= 0xEE
    _set_half(blocks, 0, std / (68.0 * 1.323), signed=True)


def _mxfp4(blocks: Bytes, std: float) -> None:
    # Two neighbouring powers of two, in the share that gives the wanted mean square.
    exponent = math.log2(std / 5.85)
    low = math.floor(exponent)
    share = (4.0 ** (exponent - low) - 1) / 3
    blocks[:, 0] = 128 + low + (blocks[:, 0] < round(256 * share))


def _nvfp4(blocks: Bytes, std: float) -> None:
    # As MXFP4, with two neighbours among the E4M3 numbers; they become multiples of 2^-9 below 2^-6.
    codes = np.arange(0x7F)
    exponents, mantissas = codes >> 3, codes & 7
    scales = np.where(exponents > 0, np.ldexp(8.0 + mantissas, exponents - 10), np.ldexp(1.0 * mantissas, -9))
    wanted = 2 * std / 5.85
    low = int(np.searchsorted(scales, wanted, "right")) - 1
    share = (wanted**2 - scales[low] ** 2) / (scales[low + 1] ** 2 - scales[low] ** 2)
    blocks[:, :4] = low + (blocks[:, :4] < round(256 * share))


def _half_at(offset: int, rms: float) -> SetScales:
    """For formats whose only wide scale is the half at `offset`; `rms` is that of the weights with d = 1."""

    def set_scales(blocks: Bytes, std: float) -> None:
        _set_half(blocks, offset, std / rms, signed=True)

    return set_scales


def _iq3_s(blocks: Bytes, std: float) -> None:
    blocks[:, 106:] &= 0x77  # Scales of 0..7: with 0..15 those of long rows would be denormal.
    _set_half(blocks, 0, std / 70.5, signed=True)


def _iq3_xxs(blocks: Bytes, std: float) -> None:
    blocks[:, 69::4] &= 0x7F  # As IQ3_S; the scale is the top of each of eight 32-bit numbers at 66.
    _set_half(blocks, 0, std / 71.4, signed=True)


def _iq1_m(blocks: Bytes, std: float) -> None:
    # d is spread over the top nibbles of four 16-bit numbers at 48.
    bits = int(np.float16(std / 7.205).view(np.uint16))
    for i in range(4):
        high = blocks[:, 49 + 2 * i]
        high &= 0x0F
        high |= (bits >> (4 * i) & 15) << 4


BLOCK_TYPES: dict[str, BlockType] = {
    "F32": BlockType(1, 4, _floats("<u4", 0x807FFFFF, 23, 127)),
    "F16": BlockType(1, 2, _floats("<u2", 0x83FF, 10, 15)),
    "BF16": BlockType(1, 2, _floats("<u2", 0x807F, 7, 127)),
    "Q4_0": BlockType(32, 18, _q4_0),
    "Q4_1": BlockType(32, 20, _q4_1),
    "Q5_0": BlockType(32, 22, _q5_0),
    "Q5_1": BlockType(32, 24, _q5_1),
    "Q8_0": BlockType(32, 34, _q8_0),
    "Q2_K": BlockType(256, 84, _q2_k),
    "Q3_K": BlockType(256, 110, _q3_k),
    "Q4_K": BlockType(256, 144, _q4_k),
    "Q5_K": BlockType(256, 176, _q5_k),
    "Q6_K": BlockType(256, 210, _q6_k),
    "IQ4_NL": BlockType(32, 18, _iq4_nl),
    "IQ4_XS": BlockType(256, 136, _iq4_xs),
    "MXFP4": BlockType(32, 17, _mxfp4),
    "NVFP4": BlockType(64, 36, _nvfp4),
    "IQ1_S": BlockType(256, 50, _half_at(0, 7.27)),
    "IQ1_M": BlockType(256, 56, _iq1_m),
    "IQ2_XXS": BlockType(256, 66, _half_at(0, 53.8)),
    "IQ2_XS": BlockType(256, 74, _half_at(0, 56.2)),
    "IQ2_S": BlockType(256, 82, _half_at(0, 57.0)),
    "IQ3_XXS": BlockType(256, 98, _iq3_xxs),
    "IQ3_S": BlockType(256, 110, _iq3_s),
    "TQ1_0": BlockType(256, 54, _half_at(52, 0.82)),
    "TQ2_0": BlockType(256, 66, _half_at(64, 1.225)),
    "Q1_0": BlockType(128, 18, _half_at(0, 1.008)),
    "Q2_0": BlockType(64, 18, _half_at(0, 1.225)),
}
"""By GGUF name. The layouts are those of the format's own description."""
