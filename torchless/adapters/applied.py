"""Applies adapters beside a model's weights: the plan gets two thin products for each adapted layer.

``linear(x, W)`` becomes ``add(linear(x, W), linear(linear(x, a), b))``; products of some rows of W take those rows of
b, and share ``linear(x, a)`` where they share x. Where the result is only added to something, as
in a residual stream, both products are added to that, one after the other, so that a backend can do it in place. All
ops are ordinary ones: whatever a backend promises for linear layers holds with adapters too.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from torchless.adapters.binding import BoundAdapters
from torchless.plan import Add, Columns, Linear, Op, Piece, Plan, Value, WeightedSum
from torchless.quants import Bytes, Floats
from torchless.weights.pieces import FilePiece, pieces_of
from torchless.weights.source import TensorInfo, WeightSource
from torchless.weights.view import SourceView

__all__ = ["AdaptedSource", "adapted_plan"]

_A, _B = ".lora_a", ".lora_b"


class AdaptedSource(SourceView):
    """A model with the matrices of its adapters as further tensors in F32. Implements `weights.source.WeightSource`.

    Closing it closes the model.
    """

    def __init__(self, source: WeightSource, adapters: BoundAdapters) -> None:
        super().__init__(source)
        self._added: dict[str, Floats] = {}
        for name, (a, b) in adapters.parts.items():
            self._added[name + _A], self._added[name + _B] = a, b
        added = {
            name: TensorInfo(name, values.shape, "F32", values.nbytes) for name, values in self._added.items()
        }
        self.tensors = MappingProxyType({**source.tensors, **added})

    def raw(self, name: str) -> Bytes:
        """The bytes of a tensor, the model's own or an adapter's."""
        values = self._added.get(name)
        if values is None:
            return self.source.raw(name)
        raw: Bytes = values.view(np.uint8).reshape(-1)
        raw.flags.writeable = False
        return raw

    def pieces(self, name: str) -> tuple[FilePiece, ...]:
        """Where the model's own tensors lie. See `weights.pieces.SourceOfPieces`."""
        return () if name in self._added else pieces_of(self.source, name)

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """Lets the file pages of the model's own tensors go."""
        if name not in self._added:
            self.source.drop_pages(name, start, num_bytes)


def adapted_plan(plan: Plan, adapters: BoundAdapters) -> Plan:
    """The plan with adapters beside the layers that they change; the plan itself where there are none."""
    if not adapters.parts:
        return plan
    shapes = dict(plan.shapes)
    for name, (a, b) in adapters.parts.items():
        shapes[name + _A], shapes[name + _B] = a.shape, b.shape
    rewriting = _Rewriting(plan, adapters)
    for op in plan.ops:
        rewriting.copy(op)
    return replace(plan, shapes=shapes, ops=rewriting.ops, _num_values=rewriting.num_values)


class _Rewriting:
    """The new list of ops in the making. Values keep their numbers; new ones get numbers above."""

    def __init__(self, plan: Plan, adapters: BoundAdapters) -> None:
        self.adapters = adapters
        self.ops: list[Op] = []
        self.num_values = max(op.out.id for op in plan.ops) + 1
        self.readers = _readers(plan)
        self.output = plan.output
        # Weight and input of a layer -> the input times its matrix a.
        self.inner: dict[tuple[str, int], Value] = {}
        # Of a value that is only added to another: the layer's own product and the adapters'.
        self.terms: dict[int, tuple[Value, Value]] = {}

    def copy(self, op: Op) -> None:
        """Appends an op as it stands or adapted."""
        if isinstance(op, Linear) and op.weight in self.adapters.parts:
            self._adapt(op)
        elif isinstance(op, Add) and (op.a.id in self.terms or op.b.id in self.terms):
            self._add_terms(op)
        else:
            self.ops.append(op)

    def _adapt(self, op: Linear) -> None:
        own, added = self._new(op.out), self._new(op.out)
        self.ops.append(replace(op, out=own))
        inner = self.inner.get((op.weight, op.x.id))
        if inner is None:
            inner = self._new(op.out, self.adapters.parts[op.weight][0].shape[0])
            self.inner[op.weight, op.x.id] = inner
            self.ops.append(Linear(inner, op.x, op.weight + _A))
        self.ops.append(Linear(added, inner, op.weight + _B, rows=op.rows))
        readers = self.readers.get(op.out.id, [])
        if len(readers) == 1 and isinstance(readers[0], Add) and op.out != self.output:
            self.terms[op.out.id] = own, added
        else:
            self.ops.append(Add(op.out, own, added))

    def _add_terms(self, op: Add) -> None:
        """out = (other + own product) + adapters' product; where both inputs are adapted, one is summed first."""
        other, adapted = (op.a, op.b) if op.b.id in self.terms else (op.b, op.a)
        if other.id in self.terms:
            self.ops.append(Add(other, *self.terms[other.id]))
        own, added = self.terms[adapted.id]
        sum_of_own = self._new(op.out)
        self.ops += [Add(sum_of_own, other, own), Add(op.out, sum_of_own, added)]

    def _new(self, like: Value, width: int | None = None) -> Value:
        self.num_values += 1
        return Value(self.num_values - 1, like.rows, like.width if width is None else width)


def _readers(plan: Plan) -> dict[int, list[Op]]:
    """Value id -> ops that read it, an op once for each time."""
    readers: dict[int, list[Op]] = {}
    for op in plan.ops:
        inputs: list[Any] = [getattr(op, name) for name in op.__dataclass_fields__ if name != "out"]
        if isinstance(op, Columns):
            inputs = list(op.pieces)
        if isinstance(op, WeightedSum):
            inputs += op.terms
        for value in inputs:
            value = value.x if isinstance(value, Piece) else value
            if isinstance(value, Value):
                readers.setdefault(value.id, []).append(op)
    return readers
