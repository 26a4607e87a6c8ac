"""Weights that a test makes up, behind the view that backends read, for plans that belong to no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.weights.source import TensorInfo

__all__ = ["ArraySource"]


class ArraySource:
    """Arrays by name, as tensors of the type F32."""

    path = "random"

    def __init__(self, values: Mapping[str, npt.NDArray[np.floating[Any]]]) -> None:
        self.data = {
            name: np.ascontiguousarray(value, "<f4").reshape(-1).view(np.uint8)
            for name, value in values.items()
        }
        self.tensors = {
            name: TensorInfo(name, value.shape, "F32", 4 * value.size) for name, value in values.items()
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}

    def raw(self, name: str) -> Any:
        return self.data[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        pass
