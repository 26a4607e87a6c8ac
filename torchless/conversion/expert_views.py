"""A model whose stacks of experts are taken apart, as Hugging Face folders hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torchless.quants import Bytes
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["ExpertsApart"]


class ExpertsApart:
    """``blk.0.ffn_up_exps.weight`` (experts, out, in) as ``blk.0.ffn_up_exps.7.weight`` (out, in) and so on.

    Implements `weights.source.WeightSource`.
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    rope_layout: Literal["interleaved", "half"]

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self.path, self.format, self.metadata = source.path, source.format, source.metadata
        self.rope_layout = source.rope_layout
        self._places: dict[str, tuple[str, int]] = {}
        tensors = {}
        for info in source.tensors.values():
            stem, _, end = info.name.rpartition(".")
            if not stem.endswith("_exps"):
                if stem.endswith("_inp_shexp") and len(info.shape) == 1:  # a matrix of one row
                    info = TensorInfo(info.name, (1, *info.shape), info.type, info.num_bytes)
                tensors[info.name] = info
                continue
            for expert in range(info.shape[0]):
                name = f"{stem}.{expert}.{end}"
                self._places[name] = (info.name, expert)
                tensors[name] = TensorInfo(name, info.shape[1:], info.type, info.num_bytes // info.shape[0])
        self.tensors = MappingProxyType(tensors)

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor: a part of the stack's."""
        stack, expert = self._places.get(name, (name, 0))
        size = self.tensors[name].num_bytes
        return self.source.raw(stack)[expert * size : (expert + 1) * size]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the pages behind a tensor go."""
        stack, expert = self._places.get(name, (name, 0))
        size = self.tensors[name].num_bytes
        self.source.drop_pages(stack, expert * size + start, size - start if num_bytes is None else num_bytes)

    def close(self) -> None:
        """Closes the source."""
        self.source.close()
