"""GPTQ and AWQ checkpoints of 4 bits: a matrix stored as packed codes, zeros and scales, read as Q4_0, Q4_1 or F16.

Both store a layer's weight transposed: codes q (inputs, outputs), eight to an int32, with a scale s and a zero z for
every group of inputs and every output; the weight is s * (q - z).

    GPTQ  qweight (inputs/8, outputs): nibble i of a word is input 8*row + i. qzeros (groups, outputs/8): nibble i is
          output 8*column + i, and holds z - 1 ("gptq_v2": z). g_idx (inputs) names the group of each input.
    AWQ   qweight (inputs, outputs/8), qzeros (groups, outputs/8): nibble i is output 8*column + (0 2 4 6 1 3 5 7)[i].

Q4_0 says d * (q - 8): exact where all zeros are 8. Q4_1 says d * q + m with m = -s * z, rounded to F16 where it has to
be. Groups that are not whole blocks of 32 inputs, as activation order makes them, fit neither and become F16.

Frantar et al. 2022 (GPTQ), Lin et al. 2023 (AWQ); layouts of AutoGPTQ and AutoAWQ (version "gemm").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.errors import FormatError, UnsupportedError
from torchless.quants import Bytes, Floats
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import DecodedWeight, FileTensor

__all__ = ["PARTS", "check_method", "four_bit_weight"]

PARTS = ("qweight", "qzeros", "scales", "g_idx")
"""What stands for ``weight`` in such a checkpoint."""

_BLOCK = 32
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_WORD = 8  # codes in an int32

_Codes = npt.NDArray[np.uint8]


def check_method(settings: Mapping[str, Any]) -> None:
    """Raises UnsupportedError for ways of GPTQ and AWQ that are stored otherwise."""
    method = settings.get("quant_method")
    if method not in ("gptq", "awq"):
        return
    bits = settings.get("bits", settings.get("w_bit", 4))
    if bits != 4:
        raise UnsupportedError(f"quantization_config: {method} of {bits!r:.20} bits; torchless reads 4 bits")
    key, known = ("checkpoint_format", ("gptq", "gptq_v2")) if method == "gptq" else ("version", ("gemm",))
    form = str(settings.get(key) or known[0]).lower()
    if form not in known:
        raise UnsupportedError(
            f"quantization_config: {key} is {form!r:.40}; torchless reads {', '.join(known)}"
        )


@dataclass(frozen=True, slots=True)
class _Packed:
    """The checked parts of one matrix."""

    codes: FileTensor
    is_awq: bool
    zeros: _Codes  # (groups, outputs)
    scales: Floats  # (groups, outputs)
    groups: npt.NDArray[np.intp]  # of each input

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.scales.shape[1], len(self.groups)

    def rows(self, begin: int, end: int) -> _Codes:
        """Codes of some outputs (end - begin, inputs)."""
        words: npt.NDArray[np.uint32] = self.codes.view().view("<u4").reshape(self.codes.stored.shape)
        if self.is_awq:
            first, last = begin // _WORD, -(-end // _WORD)
            found: _Codes = _unpack(words[:, first:last], _AWQ_ORDER)[
                :, begin - first * _WORD : end - first * _WORD
            ]
            return np.asarray(found.T)
        part = np.ascontiguousarray(words[:, begin:end].T)
        return _unpack(part, range(_WORD))


def four_bit_weight(
    name: str, parts: Mapping[str, FileTensor], settings: Mapping[str, Any]
) -> tuple[DecodedWeight, bool]:
    """The weight of a packed matrix, and whether it is exact.

    Args:
        name: canonical name.
        parts: by their names in `PARTS`.
        settings: quantization_config.

    Raises:
        FormatError: a part is missing, or the parts do not fit together.
    """
    packed = _read_parts(parts, settings)
    blocks = packed.groups.reshape(-1, _BLOCK) if len(packed.groups) % _BLOCK == 0 else np.array([[0, 1]])
    scales_fit = np.array_equal(packed.scales.astype(np.float16).astype(np.float32), packed.scales)
    if (blocks != blocks[:, :1]).any() or not np.isfinite(packed.scales.astype(np.float16)).all():
        return _as_f16(name, packed), False
    of_block = blocks[:, 0]
    if (packed.zeros == 8).all():
        return _as_blocks(name, packed, of_block, None), scales_fit
    exact = -packed.scales * packed.zeros
    minimums = exact.astype(np.float16)
    return _as_blocks(name, packed, of_block, minimums), scales_fit and np.array_equal(minimums, exact)


def _as_blocks(
    name: str, packed: _Packed, of_block: npt.NDArray[np.intp], minimums: npt.NDArray[np.float16] | None
) -> DecodedWeight:
    """Q4_0 (without minimums) or Q4_1; both hold code j and j + 16 of a block in byte j."""
    kind = quants.by_name("Q4_0" if minimums is None else "Q4_1")
    scales = packed.scales.astype("<f2")
    fields = [scales] if minimums is None else [scales, minimums.astype("<f2")]

    def encode(begin: int, end: int) -> Bytes:
        codes = packed.rows(begin, end).reshape(end - begin, -1, _BLOCK)
        out: Bytes = np.empty((*codes.shape[:2], kind.block_bytes), np.uint8)
        for i, field in enumerate(fields):
            out[:, :, 2 * i : 2 * i + 2] = np.ascontiguousarray(field[of_block, begin:end].T)[..., None].view(
                np.uint8
            )
        half = _BLOCK // 2
        out[:, :, 2 * len(fields) :] = codes[:, :, :half] | codes[:, :, half:] << 4
        return out.reshape(end - begin, -1)

    return _decoded(name, packed, kind, encode)


def _as_f16(name: str, packed: _Packed) -> DecodedWeight:
    kind = quants.by_name("F16")

    def encode(begin: int, end: int) -> Bytes:
        scales, zeros = (part[packed.groups, begin:end].T for part in (packed.scales, packed.zeros))
        return kind.encode(scales * (packed.rows(begin, end).astype(np.float32) - zeros))

    return _decoded(name, packed, kind, encode)


def _decoded(name: str, packed: _Packed, kind: quants.Format, encode: Any) -> DecodedWeight:
    num_bytes = packed.shape[0] * kind.num_bytes(packed.shape[1])
    return DecodedWeight(TensorInfo(name, packed.shape, kind.name, num_bytes), packed.codes, encode)


def _read_parts(parts: Mapping[str, FileTensor], settings: Mapping[str, Any]) -> _Packed:
    """Reads the small parts and checks all shapes."""
    codes = parts["qweight"]
    is_awq = settings.get("quant_method") == "awq"

    def fail(tensor: FileTensor, problem: str) -> NoReturn:
        raise FormatError(f"{tensor.file.path}: tensor {tensor.name!r}: {problem}")

    for part in ("qzeros", "scales"):
        if part not in parts:
            fail(codes, f"there is no {part} beside it")
    shape, scales = codes.stored.shape, parts["scales"].floats()
    if codes.stored.dtype != "I32" or len(shape) != 2 or 0 in shape:
        fail(codes, f"found {codes.stored.dtype} {list(shape)}, expected a matrix of I32")
    inputs, outputs = (shape[0], shape[1] * _WORD) if is_awq else (shape[0] * _WORD, shape[1])
    if scales.ndim != 2 or scales.shape[1] != outputs or not 0 < len(scales) <= inputs:
        fail(parts["scales"], f"found the shape {list(scales.shape)}, expected [groups, {outputs}]")
    zeros = parts["qzeros"]
    if zeros.stored.dtype != "I32" or zeros.stored.shape != (len(scales), -(-outputs // _WORD)):
        fail(
            zeros,
            f"found {zeros.stored.dtype} {list(zeros.stored.shape)}, expected I32 of {outputs} zeros a group",
        )
    words: npt.NDArray[np.uint32] = zeros.view().view("<u4").reshape(zeros.stored.shape)
    found = _unpack(words, _AWQ_ORDER if is_awq else range(_WORD))[:, :outputs]
    if not is_awq and settings.get("checkpoint_format") != "gptq_v2":
        found = (found + np.uint8(1)) & np.uint8(15)
    return _Packed(codes, is_awq, found, scales, _groups(parts, inputs, len(scales), fail))


def _groups(parts: Mapping[str, FileTensor], inputs: int, num_groups: int, fail: Any) -> npt.NDArray[np.intp]:
    """The group of each input."""
    index = parts.get("g_idx")
    if index is not None and index.stored.num_bytes:
        if index.stored.dtype != "I32" or index.stored.shape != (inputs,):
            fail(index, f"found {index.stored.dtype} {list(index.stored.shape)}, expected I32 [{inputs}]")
        groups = index.view().view("<i4").astype(np.intp)
        if groups.min() < 0 or groups.max() >= num_groups:
            fail(index, f"a group outside 0 .. {num_groups - 1}")
        return groups
    if inputs % num_groups:
        fail(parts["scales"], f"{num_groups} groups do not divide {inputs} inputs")
    return np.arange(inputs) // (inputs // num_groups)


def _unpack(words: npt.NDArray[np.uint32], order: Any) -> _Codes:
    """Eight codes for each word along the last axis; nibble i goes to place order[i]."""
    out: _Codes = np.empty((*words.shape, _WORD), np.uint8)
    for i, place in enumerate(order):
        out[..., place] = (words >> np.uint32(4 * i)) & np.uint32(15)
    return out.reshape(*words.shape[:-1], -1)
