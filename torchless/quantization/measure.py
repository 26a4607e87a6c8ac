"""The error that a block type makes on a tensor, measured on a sample of its rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchless import quants
from torchless.errors import FormatError
from torchless.quantization.encode import encode_rows
from torchless.quants import Floats
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["Sample", "is_measurable", "sample_rows"]

_SAMPLE_WEIGHTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows of a tensor, spread evenly, with the importance of their columns (ones without a matrix).

    Attributes:
        values: (rows, columns).
        importance: (columns,), or None.
    """

    name: str
    values: Floats
    importance: Floats | None

    def relative_error(self, type_name: str, threads: int = 1) -> float:
        """Sum of importance x squared error over sum of importance x squared weight.

        With an importance matrix that is the relative squared error of the layer's output, for inputs whose
        columns are uncorrelated.
        """
        raw = encode_rows(self.values.view(np.uint8), "F32", type_name, self.importance, threads)
        difference = quants.by_name(type_name).decode(raw) - self.values
        return self._energy(difference) / max(self._energy(self.values), 1e-300)

    def _energy(self, x: Floats) -> float:
        columns = np.einsum("rc,rc->c", x, x, dtype=np.float64)
        return float(columns.sum() if self.importance is None else columns @ self.importance)


def is_measurable(type_name: str) -> bool:
    """Whether torchless can decode what it would write."""
    return type_name in quants.all_formats()


def sample_rows(source: WeightSource, info: TensorInfo, importance: Floats | None) -> Sample:
    """The rows that stand for a tensor. Raises FormatError where one is not finite."""
    rows = math.prod(info.shape[:-1])
    count = min(rows, max(16, _SAMPLE_WEIGHTS // info.shape[-1]))
    picked = np.linspace(0, rows - 1, count).astype(np.int64)
    raw = source.raw(info.name).reshape(rows, -1)
    values = quants.by_name(info.type).decode(raw[picked])
    source.drop_pages(info.name)
    if not np.isfinite(values).all():
        raise FormatError(f"{source.path}: tensor {info.name!r} holds a weight that is not finite")
    if importance is not None and importance.ndim == 2:
        importance = importance.mean(axis=0, dtype=np.float32)
    return Sample(info.name, values, importance)
