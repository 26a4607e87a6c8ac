"""Experts that folders store several in one tensor, as the stacks of rows that GGUF files and plans have.

    Granite  block_sparse_moe.input_linear.weight (experts, 2 inner, in): the rows of gate, then those of up
             shared_mlp.input_linear.weight (2 inner, in): likewise, of the expert that all tokens share
    Qwen3.5  mlp.experts.gate_up_proj (experts, 2 inner, in), as Granite's; mlp.experts.down_proj (experts, out, inner)
    Gemma 4  experts.gate_up_proj and experts.down_proj, as Qwen3.5's
    gpt-oss  mlp.experts.gate_up_proj (experts, in, 2 inner): transposed, gate and up in turns; its ``_bias`` likewise
             mlp.experts.gate_up_proj_blocks (experts, 2 inner, in / 32, 16), ``_scales`` (experts, 2 inner, in / 32):
             MXFP4 by rows, gate and up in turns
             mlp.experts.down_proj (experts, inner, out), or blocks and scales as above

gpt-oss has biases, which tells it from Qwen3.5.

MXFP4 here has elements 2j and 2j + 1 in byte j; GGUF's block is the scale and then elements j and j + 16 in byte j.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError
from torchless.quants import Bytes
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import PLAIN, DecodedWeight, FileTensor

__all__ = ["fused_experts", "is_fused"]

_NAME = re.compile(
    r"model\.layers\.(\d+)\.(?:(?:mlp\.)?experts\.(gate_up_proj|down_proj)(_bias|_blocks|_scales)?"
    r"|(block_sparse_moe|shared_mlp)\.input_linear\.weight)"
)
_Bits = npt.NDArray[Any]
_BLOCK_ELEMENTS, _BLOCK_BYTES = 32, 17
_ELEMENT: dict[str, Any] = {"F32": np.dtype("<u4"), "F16": np.dtype("<u2"), "BF16": np.dtype("<u2")}


def is_fused(name: str) -> bool:
    """Whether a Hugging Face tensor is such a one."""
    return _NAME.fullmatch(name) is not None


def fused_experts(tensor: FileTensor, tensors: Mapping[str, FileTensor]) -> Iterator[DecodedWeight]:
    """The stacks that a tensor holds; none for scales, which belong to their blocks.

    Raises:
        FormatError: a shape or type that does not fit.
    """
    match = _NAME.fullmatch(tensor.name)
    assert match is not None, tensor.name
    layer, part, kind, granite = match.groups()
    prefix = f"blk.{int(layer)}.ffn_"
    if granite == "shared_mlp":
        yield from _shared_halves(tensor, prefix)
    elif granite is not None or (
        kind is None and part == "gate_up_proj" and f"{tensor.name}_bias" not in tensors
    ):
        yield from _halves(tensor, prefix)
    elif kind is None and f"{tensor.name}_bias" not in tensors:
        yield _stack(tensor, f"{prefix}down_exps.weight", _plain(tensor, 3))
    elif kind == "_scales":
        return
    elif kind == "_blocks":
        scales = tensors.get(tensor.name.removesuffix("_blocks") + "_scales")
        yield from _mxfp4(tensor, scales, prefix, part)
    else:
        yield from _transposed(tensor, prefix, part, is_bias=kind is not None)


def _halves(tensor: FileTensor, prefix: str) -> Iterator[DecodedWeight]:
    values = _plain(tensor, 3)
    inner = values.shape[1] // 2
    for name, part in (("gate", slice(0, inner)), ("up", slice(inner, 2 * inner))):
        yield _stack(tensor, f"{prefix}{name}_exps.weight", values[:, part])


def _shared_halves(tensor: FileTensor, prefix: str) -> Iterator[DecodedWeight]:
    values = _plain(tensor, 2)
    inner = values.shape[0] // 2
    for name, rows in (("gate", values[:inner]), ("up", values[inner : 2 * inner])):
        yield _stack(tensor, f"{prefix}{name}_shexp.weight", rows)


def _transposed(tensor: FileTensor, prefix: str, part: str, *, is_bias: bool) -> Iterator[DecodedWeight]:
    values = _plain(tensor, 2 if is_bias else 3)
    end = "bias" if is_bias else "weight"
    if not is_bias:
        values = values.transpose(0, 2, 1)
    for name, rows in _parts(part):
        yield _stack(tensor, f"{prefix}{name}_exps.{end}", values[:, rows])


def _mxfp4(blocks: FileTensor, scales: FileTensor | None, prefix: str, part: str) -> Iterator[DecodedWeight]:
    shape = blocks.stored.shape
    if (
        scales is None
        or (blocks.stored.dtype, scales.stored.dtype) != ("U8", "U8")
        or (len(shape), shape[-1:]) != (4, (16,))
        or scales.stored.shape != shape[:-1]
    ):
        raise FormatError(
            f"{blocks.file.path}: tensor {blocks.name!r} is {blocks.stored.dtype} {shape}, expected U8 blocks of 16 "
            f"bytes (experts, rows, blocks, 16) with U8 scales (experts, rows, blocks) beside them"
        )
    place_of = np.concatenate(
        [np.arange(0, 32, 2), np.arange(1, 32, 2)]
    ).argsort()  # element -> place in codes below
    low, high = place_of[:16], place_of[16:]
    codes, exponents = blocks.view().reshape(shape), scales.view().reshape(shape[:-1])
    for name, rows in _parts(part):
        of_part, exponents_of_part = codes[:, rows], exponents[:, rows]

        def encode(
            begin: int, end: int, of_part: Bytes = of_part, exponents_of_part: Bytes = exponents_of_part
        ) -> Bytes:
            found, scale = _row_range(of_part, begin, end), _row_range(exponents_of_part, begin, end)
            nibbles = np.concatenate([found & 15, found >> 4], axis=-1)
            out: Bytes = np.empty((*scale.shape, _BLOCK_BYTES), np.uint8)
            out[..., 0] = scale
            out[..., 1:] = nibbles[..., low] | nibbles[..., high] << 4
            return out

        stack_shape = (*of_part.shape[:2], shape[2] * _BLOCK_ELEMENTS)
        num_bytes = math.prod(of_part.shape[:3]) * _BLOCK_BYTES
        info = TensorInfo(f"{prefix}{name}_exps.weight", stack_shape, "MXFP4", num_bytes)
        yield DecodedWeight(info, blocks, encode)


def _parts(part: str) -> tuple[tuple[str, slice], ...]:
    if part == "down_proj":
        return (("down", slice(None)),)
    return ("gate", slice(0, None, 2)), ("up", slice(1, None, 2))


def _plain(tensor: FileTensor, num_dims: int) -> _Bits:
    """The numbers of a float tensor as bits."""
    stored = tensor.stored
    if stored.dtype not in PLAIN or len(stored.shape) != num_dims:
        raise FormatError(
            f"{tensor.file.path}: tensor {tensor.name!r} is {stored.dtype} {stored.shape}, expected {num_dims} "
            f"dimensions of {', '.join(PLAIN)}"
        )
    values: _Bits = tensor.view().view(_ELEMENT[stored.dtype])
    return values.reshape(stored.shape)


def _stack(tensor: FileTensor, name: str, values: _Bits) -> DecodedWeight:
    def rows(begin: int, end: int) -> Bytes:
        found = values[begin:end] if values.ndim == 2 else _row_range(values, begin, end)
        return np.ascontiguousarray(found).view(np.uint8)

    info = TensorInfo(name, values.shape, tensor.stored.dtype, values.size * values.itemsize)
    return DecodedWeight(info, tensor, rows)


def _row_range(values: _Bits, begin: int, end: int) -> _Bits:
    """Rows [begin, end) of all experts' rows one behind the other; a view cannot say it for strided parts."""
    per_expert = values.shape[1]
    found = []
    for expert in range(begin // per_expert, -(-end // per_expert)):
        first = expert * per_expert
        found.append(values[expert, max(begin - first, 0) : min(end - first, per_expert)])
    return np.concatenate(found)
