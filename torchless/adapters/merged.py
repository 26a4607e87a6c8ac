"""Adapters merged into a model's weights: a weight source whose adapted tensors are sums, in float32."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np

from torchless import quants
from torchless.adapters.binding import BoundAdapters
from torchless.quants import Bytes, Floats
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.view import SourceView

__all__ = ["MergedSource"]

_SLICE_WEIGHTS = 1 << 22


class MergedSource(SourceView):
    """Implements `weights.source.WeightSource`: adapted tensors are F32, the others as they are.

    Args:
        source: the model; closed with this one.
        adapters: bound to the order of rows that `source` has.
    """

    def __init__(self, source: WeightSource, adapters: BoundAdapters) -> None:
        super().__init__(source)
        self.adapters = adapters
        self.tensors = MappingProxyType(
            {
                name: TensorInfo(name, info.shape, "F32", 4 * math.prod(info.shape))
                if name in adapters.parts
                else info
                for name, info in source.tensors.items()
            }
        )
        self._last: tuple[str, Bytes] | None = None  # readers come back for slice after slice of one tensor

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor: a sum made when it is asked for, or the source's own."""
        if name not in self.adapters.parts:
            return self.source.raw(name)
        if self._last is None or self._last[0] != name:
            self._last = None
            self._last = name, self._merge(name)
        return self._last[1]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets file pages go; a sum is kept until another tensor is asked for."""
        if name not in self.adapters.parts:
            self.source.drop_pages(name, start, num_bytes)

    def close(self) -> None:
        """Closes the source."""
        self._last = None
        super().close()

    def _merge(self, name: str) -> Bytes:
        a, b = self.adapters.parts[name]
        info = self.source.tensors[name]
        raw, stored = self.source.raw(name), quants.by_name(info.type)
        merged: Floats = np.empty((b.shape[0], a.shape[1]), np.float32)
        row_bytes = info.num_bytes // len(merged)
        step = max(1, _SLICE_WEIGHTS // a.shape[1])
        for begin in range(0, len(merged), step):
            end = min(begin + step, len(merged))
            rows = stored.decode(raw[begin * row_bytes : end * row_bytes]).reshape(end - begin, -1)
            merged[begin:end] = rows + b[begin:end] @ a
        self.source.drop_pages(name)
        result: Bytes = merged.view(np.uint8).reshape(-1)
        result.flags.writeable = False
        return result
