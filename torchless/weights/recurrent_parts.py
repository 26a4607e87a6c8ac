"""Weights of gated delta-nets, as GGUF files and plans have them.

Hugging Face folders of Qwen3-Next and Qwen3.5 hold, and here become:

- ``in_proj_qkvz``, for each key head the rows of its query, its key, its values and their gates: ``attn_qkv``, all
  queries, all keys, all values; and ``attn_gate``;
- the logarithm of a head's decay: ``ssm_a``, the negative decay itself;
- norms around zero (but for that of heads): what they multiply with, one more;
- ``conv1d`` (channels, 1, taps): ``ssm_conv1d`` (channels, taps);
- of Qwen3.5, value heads by the key head that serves them, ``[k0 v0, k0 v1, k1 v0, k1 v1]``: in turns, ``[k0 v0, k1 v0,
  k0 v1, k1 v1]``, in every tensor that has rows or columns of value heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.errors import FormatError
from torchless.quants import Bytes, Floats
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import DecodedWeight, StoredWeight

__all__ = ["column_order", "convert_recurrent", "mapped_vector", "rows_of_parts"]

_GROUPED = ("qwen3next",)
_IN_TURNS = ("qwen35", "qwen35moe")


class _Heads(NamedTuple):
    """Sizes of a delta-net's heads."""

    keys: int
    values: int
    key_dim: int
    value_dim: int

    @property
    def turns(self) -> npt.NDArray[np.intp]:
        """The value heads, key heads taking turns."""
        turns: npt.NDArray[np.intp] = np.arange(self.values).reshape(self.keys, -1).T.reshape(-1)
        return turns

    @property
    def elements(self) -> npt.NDArray[np.intp]:
        """The elements of the value heads, key heads taking turns."""
        return (self.turns[:, None] * self.value_dim + np.arange(self.value_dim)).reshape(-1)

    def rows(self, name: str) -> npt.NDArray[np.intp] | None:
        """New order of the rows of a tensor, by what it is in its layer."""
        of_heads = self.elements
        if name in ("attn_qkv", "ssm_conv1d"):
            queries_and_keys = 2 * self.keys * self.key_dim
            return np.concatenate([np.arange(queries_and_keys), queries_and_keys + of_heads])
        return {"attn_gate": of_heads, "ssm_alpha": self.turns, "ssm_beta": self.turns}.get(name)

    def rows_apart(self) -> dict[str, npt.NDArray[np.intp]]:
        """Rows of ``attn_qkv`` and ``attn_gate`` in all that a layer projects its input to."""
        per_key = self.values // self.keys * self.value_dim
        first = np.arange(self.keys)[:, None] * (2 * self.key_dim + 2 * per_key)

        def part(start: int, count: int) -> npt.NDArray[np.intp]:
            return (first + np.arange(start, start + count)).reshape(-1)

        queries, keys = part(0, self.key_dim), part(self.key_dim, self.key_dim)
        values, gates = part(2 * self.key_dim, per_key), part(2 * self.key_dim + per_key, per_key)
        return {"attn_qkv": np.concatenate([queries, keys, values]), "attn_gate": gates}


def rows_of_parts(part: str, metadata: Mapping[str, Any]) -> dict[str, npt.NDArray[np.intp]]:
    """What a matrix of a folder becomes, by names within a layer, each with its rows of that matrix; {} where it stays.

    Raises:
        FormatError: the settings name impossible sizes.
    """
    architecture = metadata["general.architecture"]
    if architecture in _GROUPED and part == "ssm_in":
        return _heads(metadata).rows_apart()
    order = _heads(metadata).rows(part) if architecture in _IN_TURNS else None
    return {} if order is None else {part: order}


def column_order(part: str, metadata: Mapping[str, Any]) -> npt.NDArray[np.intp] | None:
    """The columns of a folder's matrix in their new order; None where they stay. Raises FormatError as above."""
    is_moved = metadata["general.architecture"] in _IN_TURNS and part == "ssm_out"
    return _heads(metadata).elements if is_moved else None


def convert_recurrent(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights, those of delta-nets as above; others pass.

    Raises:
        FormatError: a shape or type that does not fit the sizes that the settings name.
    """
    architecture = metadata["general.architecture"]
    if architecture not in (*_GROUPED, *_IN_TURNS):
        yield from weights
        return
    heads = _heads(metadata)
    for weight in weights:
        name = weight.info.name.split(".")[2] if weight.info.name.startswith("blk.") else ""
        if name == "ssm_in":
            yield from _apart(weight, heads)
        elif name == "ssm_a":
            yield mapped_vector(
                weight, lambda decay: -np.exp(decay), heads if architecture in _IN_TURNS else None
            )
        elif name == "ssm_dt" and architecture in _IN_TURNS:
            yield mapped_vector(weight, lambda bias: bias, heads)
        elif weight.info.name.endswith("norm.weight") and name != "ssm_norm":
            yield mapped_vector(weight, lambda norm: norm + np.float32(1))
        else:
            weight = _convolution(weight) if name == "ssm_conv1d" else weight
            order = heads.rows(name) if architecture in _IN_TURNS else None
            if order is not None:
                weight = _reordered(weight, order)
            elif name == "ssm_out" and architecture in _IN_TURNS:
                weight = _columns_reordered(weight, heads)
            yield weight


def _heads(metadata: Mapping[str, Any]) -> _Heads:
    architecture = metadata["general.architecture"]

    def size(key: str) -> int:
        return int(metadata.get(f"{architecture}.ssm.{key}", 0))

    keys, values, inner = size("group_count"), size("time_step_rank"), size("inner_size")
    if not keys or not values or values % keys or inner % values or not size("state_size"):
        raise FormatError(
            f"the settings name {keys} key heads of {size('state_size')} and {values} value heads of together {inner} "
            f"elements; value heads must be a multiple of key heads"
        )
    return _Heads(keys, values, size("state_size"), inner // values)


def _wrong(weight: StoredWeight, expected: str) -> FormatError:
    return FormatError(
        f"{weight.origin.file.path}: tensor {weight.origin.name!r} is {weight.info.type} {weight.info.shape}, "
        f"expected {expected}"
    )


def _floats(weight: StoredWeight) -> Floats:
    values: Floats = quants.by_name(weight.info.type).decode(weight.raw()).astype(np.float32, copy=False)
    return values.reshape(weight.info.shape)


def mapped_vector(
    weight: StoredWeight,
    change: Callable[[Floats], Floats],
    heads: _Heads | None = None,
    name: str | None = None,
) -> DecodedWeight:
    """A vector of floats, changed, in F32, under a new name if one is given; heads in turns where they are given."""
    info = weight.info
    if len(info.shape) != 1 or (heads is not None and info.shape[0] != heads.values):
        raise _wrong(weight, "a vector" if heads is None else f"one number for each of {heads.values} heads")

    def rows(begin: int, end: int) -> Bytes:
        values = change(_floats(weight))
        values = values if heads is None else values[heads.turns]
        return np.ascontiguousarray(values, dtype="<f4").view(np.uint8)

    new = TensorInfo(name or info.name, info.shape, "F32", 4 * info.shape[0])
    return DecodedWeight(new, weight.origin, rows)


def _convolution(weight: StoredWeight) -> DecodedWeight:
    """(channels, 1, taps) without the middle, in F32."""
    shape = weight.info.shape
    if len(shape) != 3 or shape[1] != 1:
        raise _wrong(weight, "(channels, 1, taps)")

    def rows(begin: int, end: int) -> Bytes:
        values = _floats(weight)[begin:end, 0]
        return np.ascontiguousarray(values, dtype="<f4").view(np.uint8)

    info = TensorInfo(weight.info.name, (shape[0], shape[2]), "F32", 4 * shape[0] * shape[2])
    return DecodedWeight(info, weight.origin, rows)


def _reordered(
    weight: StoredWeight, order: npt.NDArray[np.intp], name: str | None = None, num_rows: int | None = None
) -> DecodedWeight:
    """A matrix whose row i is row order[i] of `weight`, which has `num_rows` (None: as many)."""
    info = weight.info
    if len(info.shape) != 2 or info.shape[0] != (len(order) if num_rows is None else num_rows):
        raise _wrong(weight, f"a matrix of {len(order) if num_rows is None else num_rows} rows")

    def rows(begin: int, end: int) -> Bytes:
        return np.ascontiguousarray(weight.raw().reshape(info.shape[0], -1)[order[begin:end]])

    num_bytes = info.num_bytes // info.shape[0] * len(order)
    new = TensorInfo(name or info.name, (len(order), info.shape[1]), info.type, num_bytes)
    return DecodedWeight(new, weight.origin, rows)


def _columns_reordered(weight: StoredWeight, heads: _Heads) -> DecodedWeight:
    """A matrix whose columns are the value heads, in turns."""
    info = weight.info
    block = quants.by_name(info.type).block_elements
    if len(info.shape) != 2 or info.shape[1] != heads.values * heads.value_dim or heads.value_dim % block:
        raise _wrong(weight, f"{heads.values} heads of {heads.value_dim} columns, whole blocks each")
    head_bytes = info.num_bytes // math.prod(info.shape[:1]) // heads.values

    def rows(begin: int, end: int) -> Bytes:
        found = weight.raw().reshape(info.shape[0], heads.values, head_bytes)[begin:end]
        return np.ascontiguousarray(found[:, heads.turns])

    return DecodedWeight(info, weight.origin, rows)


def _apart(weight: StoredWeight, heads: _Heads) -> Iterator[DecodedWeight]:
    """``attn_qkv`` and ``attn_gate`` of all that a layer projects its input to."""
    parts = heads.rows_apart()
    stem, num_rows = weight.info.name.removesuffix("ssm_in.weight"), sum(map(len, parts.values()))
    for name, order in parts.items():
        yield _reordered(weight, order, f"{stem}{name}.weight", num_rows)
