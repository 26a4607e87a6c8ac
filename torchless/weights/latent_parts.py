"""The projection that makes keys and values of a latent vector, as the two stacks that GGUF files and plans have.

Hugging Face folders of DeepSeek models hold ``kv_b_proj`` (heads * (plain + value), latent): for each head the rows of
its key, then those of its value. Here it becomes ``attn_k_b`` (heads, latent, plain), transposed, and ``attn_v_b``
(heads, value, latent).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.errors import FormatError
from torchless.quants import Bytes
from torchless.weights.source import TensorInfo
from torchless.weights.stored_weights import DecodedWeight, StoredWeight

__all__ = ["split_latents"]

_ELEMENT: dict[str, Any] = {"F32": np.dtype("<u4"), "F16": np.dtype("<u2"), "BF16": np.dtype("<u2")}


def split_latents(weights: Iterable[StoredWeight], metadata: Mapping[str, Any]) -> Iterator[StoredWeight]:
    """The weights, such projections in two parts.

    Raises:
        FormatError: the rows are not those of the heads that the settings name.
    """
    architecture = metadata["general.architecture"]
    for weight in weights:
        if not weight.info.name.endswith(".attn_kv_b.weight"):
            yield weight
            continue
        head, value, rotated, heads = (
            metadata.get(f"{architecture}.{key}", 0)
            for key in (
                *("attention.key_length_mla", "attention.value_length_mla"),
                *("rope.dimension_count", "attention.head_count"),
            )
        )
        yield from _parts(weight, heads, head - rotated, value)


def _parts(weight: StoredWeight, heads: int, plain: int, value: int) -> Iterator[StoredWeight]:
    info = weight.info
    if info.type not in _ELEMENT or len(info.shape) != 2 or info.shape[0] != heads * (plain + value):
        raise FormatError(
            f"{weight.origin.file.path}: tensor {weight.origin.name!r} is {info.type} {info.shape}, expected "
            f"{heads} heads of {plain} + {value} rows of floats"
        )

    def values() -> npt.NDArray[Any]:
        bits: npt.NDArray[Any] = weight.raw().view(_ELEMENT[info.type])
        return bits.reshape(heads, plain + value, info.shape[1])

    def rows_of(part: npt.NDArray[Any], begin: int, end: int) -> Bytes:
        per_head = part.shape[1]
        first, last = begin // per_head, -(-end // per_head)
        rows = np.ascontiguousarray(part[first:last]).reshape(-1, part.shape[2])
        return rows[begin - first * per_head : end - first * per_head].view(np.uint8)

    def keys(begin: int, end: int) -> Bytes:
        return rows_of(values()[:, :plain].transpose(0, 2, 1), begin, end)

    def value_rows(begin: int, end: int) -> Bytes:
        return rows_of(values()[:, plain:], begin, end)

    stem, width = info.name.removesuffix("kv_b.weight"), info.shape[1]
    size = _ELEMENT[info.type].itemsize
    for name, shape, rows in (
        ("k_b", (heads, width, plain), keys),
        ("v_b", (heads, value, width), value_rows),
    ):
        part = TensorInfo(f"{stem}{name}.weight", shape, info.type, math.prod(shape) * size)
        yield DecodedWeight(part, weight.origin, rows)
