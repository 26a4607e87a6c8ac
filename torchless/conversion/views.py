"""A model as the other file format would hold it: a weight source over a weight source.

Tensors that look the same in both formats pass through without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.conversion.families import Family
from torchless.conversion.rotary_rows import row_order
from torchless.quants import Bytes, Floats
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.view import SourceView

__all__ = ["ConvertedView", "is_norm", "rotary_orders"]


class ConvertedView(SourceView):
    """A model with its rotary rows in another order, and with vectors in types of the other format.

    Implements `weights.source.WeightSource`.

    Args:
        source: the model as stored.
        family: its entry in the table of families.
        metadata: what the view shows as such.
        layout: how rotary rows shall lie: ``"half"`` for a folder, ``"interleaved"`` for a GGUF file.
        vector_type: type of the vectors (norms, biases).
        extra: further F32 tensors.
        dropped: names of tensors that the other format does not have.
        names: parts of layers that have another name in the other format.
    """

    def __init__(
        self,
        source: WeightSource,
        family: Family,
        metadata: Mapping[str, Any],
        *,
        layout: Literal["interleaved", "half"],
        vector_type: str,
        extra: Mapping[str, Floats] | None = None,
        dropped: tuple[str, ...] = (),
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(source)
        self.metadata = metadata
        self.format = "gguf" if layout == "interleaved" else "safetensors"
        self.rope_layout = layout if family.rotary_rows else source.rope_layout
        self._are_centred = family.centred_norms and layout == "half"
        self._extra = dict(extra or {})
        self._orders = rotary_orders(source, family, layout) if source.rope_layout != layout else {}
        self._stored_names: dict[str, str] = {}
        tensors = {}
        for info in source.tensors.values():
            if info.name in dropped:
                continue
            stored = quants.stored_type(vector_type)
            if len(info.shape) < 2 and info.type != vector_type and stored is not None:
                num_bytes = math.prod(info.shape) * stored.block_bytes
                info = TensorInfo(info.name, info.shape, vector_type, num_bytes)
            new = _renamed(info.name, names)
            self._stored_names[new] = info.name
            tensors[new] = (
                TensorInfo(new, info.shape, info.type, info.num_bytes) if new != info.name else info
            )
        for name, values in self._extra.items():
            tensors[name] = TensorInfo(name, values.shape, "F32", values.nbytes)
        self.tensors = MappingProxyType(tensors)

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor: the source's own where nothing differs."""
        if name in self._extra:
            return self._extra[name].view(np.uint8).reshape(-1)
        shown, name = self.tensors[name], self._stored_names[name]
        raw, stored = self.source.raw(name), self.source.tensors[name]
        shift = self._shifts(name)
        if shown.type != stored.type or shift:
            values = quants.by_name(stored.type).decode(raw)
            values = values - np.float32(1) if shift else values
            raw = quants.by_name(shown.type).encode(values).reshape(-1)
        order = self._orders.get(name)
        if order is not None:
            raw = raw.reshape(len(order), -1)[order].reshape(-1)
            self.source.drop_pages(name)
        return raw

    def _shifts(self, stored_name: str) -> bool:
        """Whether a vector is a norm that a folder holds less one."""
        return self._are_centred and is_norm(stored_name)

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the pages behind a tensor go; copies hold none."""
        if name in self._extra:
            return
        stored = self._stored_names[name]
        if stored not in self._orders and self.tensors[name].type == self.source.tensors[stored].type:
            self.source.drop_pages(stored, start, num_bytes)


def is_norm(name: str) -> bool:
    """Whether a tensor is what a norm multiplies with."""
    return name.endswith("norm.weight")


def _renamed(name: str, names: Mapping[str, str]) -> str:
    pieces = name.split(".")
    if name.startswith("blk.") and pieces[2] in names:
        pieces[2] = names[pieces[2]]
    return ".".join(pieces)


def rotary_orders(
    source: WeightSource, family: Family, layout: Literal["interleaved", "half"]
) -> dict[str, npt.NDArray[np.intp]]:
    """By tensor of the model, for each row of `layout` the row of the other layout that belongs there; only those whose
    rows differ."""
    if not family.rotary_rows:
        return {}
    architecture = source.metadata["general.architecture"]
    orders = {}
    for part, heads_key in family.rotary_rows:
        heads = source.metadata.get(f"{architecture}.{heads_key}")
        if heads is None:
            heads = source.metadata[f"{architecture}.attention.head_count"]
        for name, info in source.tensors.items():
            if name.startswith("blk.") and name.split(".")[2] == part:
                rotated = source.metadata.get(f"{architecture}.rope.dimension_count", info.shape[0] // heads)
                orders[name] = row_order(info.shape[0], heads, rotated, layout)
    return orders
