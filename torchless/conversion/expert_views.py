"""A model whose stacks of experts are taken apart, or joined further, as Hugging Face folders hold them."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np

from torchless import quants
from torchless.quants import Bytes
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.stored_weights import LastCopy
from torchless.weights.view import SourceView

__all__ = ["ExpertsApart", "ExpertsJoined"]


class ExpertsApart(SourceView):
    """``blk.0.ffn_up_exps.weight`` (experts, out, in) as ``blk.0.ffn_up_exps.7.weight`` (out, in) and so on.

    Implements `weights.source.WeightSource`.
    """

    def __init__(self, source: WeightSource) -> None:
        super().__init__(source)
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


class ExpertsJoined(SourceView):
    """``ffn_gate_exps`` and ``ffn_up_exps`` as one ``ffn_gate_up_exps`` (experts, 2 inner, in), up behind gate.

    The expert that all tokens share (``_shexp``) likewise. Implements `weights.source.WeightSource`. Where gate and up
    have different types both are decoded to F32.
    """

    def __init__(self, source: WeightSource) -> None:
        super().__init__(source)
        self._pairs: dict[str, tuple[TensorInfo, TensorInfo]] = {}
        self._copy = LastCopy()
        tensors = {}
        for info in source.tensors.values():
            stem, _, kind = info.name.removesuffix(".weight").rpartition("_")
            other = source.tensors.get(info.name.replace(".ffn_gate_", ".ffn_up_"))
            if kind not in ("exps", "shexp") or not stem.endswith((".ffn_gate", ".ffn_up")):
                tensors[info.name] = info
            elif stem.endswith(".ffn_gate") and other is not None and other.shape == info.shape:
                name = f"{stem}_up_{kind}.weight"
                self._pairs[name] = info, other
                tensors[name] = _joined(name, info, other)
        self.tensors = MappingProxyType(tensors)

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor; a copy where it is joined."""
        pair = self._pairs.get(name)
        if pair is None:
            return self.source.raw(name)
        return self._copy.get(name, lambda: self._join(name, pair))

    def _join(self, name: str, pair: tuple[TensorInfo, TensorInfo]) -> Bytes:
        count = pair[0].shape[0] if len(pair[0].shape) == 3 else 1
        parts = []
        for info in pair:
            raw = self.source.raw(info.name)
            if info.type != self.tensors[name].type:
                raw = quants.by_name(info.type).decode(raw).reshape(-1).view(np.uint8)
            parts.append(raw.reshape(count, -1))
        joined: Bytes = np.concatenate(parts, axis=1).reshape(-1)
        for info in pair:
            self.source.drop_pages(info.name)
        return joined

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the pages behind a tensor go, or its copy, once all of it was read."""
        if name in self._pairs:
            self._copy.drop(name, None if num_bytes is None else start + num_bytes)
        else:
            self.source.drop_pages(name, start, num_bytes)


def _joined(name: str, gate: TensorInfo, up: TensorInfo) -> TensorInfo:
    shape = (*gate.shape[:-2], 2 * gate.shape[-2], gate.shape[-1])
    if gate.type == up.type:
        return TensorInfo(name, shape, gate.type, 2 * gate.num_bytes)
    return TensorInfo(name, shape, "F32", 8 * math.prod(gate.shape))
