"""Models that are only looked at: a file's tensors under other types, and shapes without a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.bench.recipes import find_recipe as synthetic_recipe
from torchless.bench.shapes import find_shape, tensor_shapes
from torchless.bench.synthetic import synthetic_metadata, synthetic_tensors
from torchless.quantization.choice import Exceptions, choose_types, model_facts
from torchless.quantization.recipes import Recipe
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["RecipeView", "ShapeSource", "with_type"]


class RecipeView:
    """A model as it would be after `torchless quantize` by a recipe: implements `WeightSource` but for the bytes.

    Args:
        source: the model; stays open and belongs to the caller.
        recipe: chooses the type of each tensor.
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"]

    def __init__(self, source: WeightSource, recipe: Recipe) -> None:
        self.path, self.format, self.rope_layout = source.path, source.format, source.rope_layout
        self.metadata = source.metadata
        chosen = choose_types(source, recipe, model_facts(source), Exceptions())
        self.tensors = MappingProxyType(
            {name: with_type(info, chosen[name]) for name, info in source.tensors.items()}
        )

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """There are no bytes to read."""
        raise ValueError(f"tensor {name!r} of {self.path} is only planned: it has no bytes")

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Nothing was read."""

    def close(self) -> None:
        """The source behind it belongs to somebody else."""


class ShapeSource(RecipeView):
    """A model of `torchless.bench.shapes`, in BF16, without a file.

    Raises:
        InvalidRequestError: there is no such shape; the message lists those that exist.
    """

    def __init__(self, name: str) -> None:
        shape, recipe = find_shape(name), synthetic_recipe("BF16")
        self.path, self.format, self.rope_layout = Path(f"synthetic {name}"), "gguf", "interleaved"
        metadata = synthetic_metadata(shape, recipe, f"synthetic {name}")
        self.metadata = MappingProxyType(
            {key: value.item() if isinstance(value, np.generic) else value for key, value in metadata.items()}
        )
        kinds = {name: kind for name, _, kind, _ in synthetic_tensors(shape, recipe, 0)}
        self.tensors = MappingProxyType(
            {
                tensor: with_type(TensorInfo(tensor, dims, "", 0), kinds[tensor])
                for tensor, dims in tensor_shapes(shape).items()
            }
        )
        self._factors = {
            name: np.concatenate(list(chunks))
            for name, _, _, chunks in synthetic_tensors(shape, recipe, 0)
            if name == "rope_freqs.weight"
        }

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """Only what a configuration is read from has bytes."""
        return self._factors[name] if name in self._factors else super().raw(name)


def with_type(info: TensorInfo, type_name: str) -> TensorInfo:
    """The tensor stored as another type."""
    if type_name == info.type:
        return info
    stored = quants.stored_type(type_name)
    assert stored is not None, type_name
    num_bytes = math.prod(info.shape) // stored.block_elements * stored.block_bytes
    return TensorInfo(info.name, info.shape, type_name, num_bytes)
