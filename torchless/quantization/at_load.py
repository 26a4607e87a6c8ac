"""A model quantised while it is loaded: a weight source that encodes each tensor when it is asked for.

Types and bytes are those that `torchless quantize` writes for the same recipe. Only one encoded tensor exists at a
time beside what its reader keeps, and the source's file pages go as they are read.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np

from torchless import quants
from torchless.errors import InvalidRequestError
from torchless.quantization.choice import Exceptions, choose_types, model_facts
from torchless.quantization.encode import PLAIN_TYPES, check_writable, encode_tensor
from torchless.quantization.recipes import Recipe
from torchless.quants import Bytes
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.view import SourceView

__all__ = ["QuantizedSource"]


class QuantizedSource(SourceView):
    """Implements `weights.source.WeightSource` over a model in floats.

    Args:
        source: the model; closed with this one.
        recipe: chooses the type of each tensor.
        threads: threads of the quantisers.

    Raises:
        InvalidRequestError: the model is quantised already.
        UnsupportedError: torchless cannot quantise to a type of the recipe.
    """

    def __init__(self, source: WeightSource, recipe: Recipe, threads: int) -> None:
        super().__init__(source)
        self.threads = threads
        chosen = choose_types(source, recipe, model_facts(source), Exceptions())
        for info in source.tensors.values():
            if chosen[info.name] != info.type:
                if info.type not in PLAIN_TYPES:
                    raise InvalidRequestError(
                        f"{source.path}: tensor {info.name!r} is {info.type} already; quant quantises models in "
                        f"{', '.join(PLAIN_TYPES)}: leave it out, or load such a model"
                    )
                check_writable(chosen[info.name])
        self.tensors = MappingProxyType(
            {name: _stored_as(info, chosen[name]) for name, info in source.tensors.items()}
        )
        self._in_use: WeakValueDictionary[str, Bytes] = (
            WeakValueDictionary()
        )  # an embedding may be two things

    def raw(self, name: str) -> Bytes:
        """The encoded bytes of a tensor, read-only; they live as long as their reader keeps them."""
        info, shown = self.source.tensors[name], self.tensors[name]
        if shown.type == info.type:
            return self.source.raw(name)
        encoded = self._in_use.get(name)
        if encoded is None:
            encoded = np.empty(shown.num_bytes, np.uint8)
            written = 0
            for chunk in encode_tensor(self.source, info, shown.type, None, self.threads):
                encoded[written : written + chunk.size] = chunk.reshape(-1)
                written += chunk.size
            assert written == shown.num_bytes, name
            encoded.flags.writeable = False
            self._in_use[name] = encoded
        return encoded

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the file pages of a tensor that is not encoded go."""
        if self.tensors[name] is self.source.tensors[name]:
            self.source.drop_pages(name, start, num_bytes)


def _stored_as(info: TensorInfo, type_name: str) -> TensorInfo:
    if type_name == info.type:
        return info
    stored = quants.stored_type(type_name)
    assert stored is not None, type_name
    num_bytes = math.prod(info.shape) // stored.block_elements * stored.block_bytes
    return TensorInfo(info.name, info.shape, type_name, num_bytes)
