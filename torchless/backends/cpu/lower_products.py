"""Lowers products: several of one input as one stage, gate and up with the GLU, sums into the residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchless.backends.cpu.stages import F32
from torchless.plan import Glu, Linear

if TYPE_CHECKING:
    from torchless.backends.cpu.lower import _Lowering

__all__ = ["emit_linear"]

_GROUP_COLUMNS = 256
"""Columns that a gated product makes at a time: whole blocks in every number format."""


def emit_linear(lowering: _Lowering, index: int, op: Linear) -> None:
    """This product together with all later products of the same input and number format."""
    number_format = lowering.activation_format(op.weight)
    if _emit_gated(lowering, op, number_format):
        return
    group = [
        (i, other)
        for i, other in enumerate(lowering.plan.ops)
        if i >= index
        and (i == index or lowering.fuse)
        and i not in lowering.done
        and isinstance(other, Linear)
        and other.x == op.x
        and lowering.activation_format(other.weight) == number_format
    ]
    x = lowering._read(op.x, number_format)
    parts = []
    for i, linear in group:
        residual = lowering._residual_of(i, linear) if len(group) == 1 else None
        if residual is None:
            out = lowering._define(linear.out, F32)
        else:
            add_index, add, other = residual
            out = lowering._read(other, F32)
            lowering.locations[add.out.id, F32] = out
            lowering.done.add(add_index)
        parts.append((linear.matrix, linear.bias_vector, out, residual is not None))
        lowering.done.add(i)
    if lowering.fuse and len(group) == 1 and op.out == lowering.plan.output:
        lowering._stage("head", x=x, part=parts[0])
    else:
        lowering._stage("matmul", x=x, parts=parts)
    for part in parts:
        lowering._touch(part[2], len(lowering.result.stages) - 1)
    for i, linear in group:
        residual = lowering._residual_of(i, linear) if len(group) == 1 else None
        lowering._convert_for_consumers(linear.out if residual is None else residual[1].out)


def _emit_gated(lowering: _Lowering, gate: Linear, number_format: str) -> bool:
    """glu(gate(x), up(x)) as one stage, when only the GLU reads the two products; False when it is not one."""
    if not lowering.fuse:
        return False
    uses = lowering.uses[gate.out.id]
    glu = lowering.plan.ops[uses[0]] if len(uses) == 1 else None
    if not isinstance(glu, Glu) or glu.gate != gate.out or gate.out.width % _GROUP_COLUMNS:
        return False
    up_index, up = next(((i, op) for i, op in enumerate(lowering.plan.ops) if op.out == glu.up), (0, None))
    if not isinstance(up, Linear) or up.x != gate.x or lowering.uses[up.out.id] != uses:
        return False
    out_format, others = lowering._formats_of(glu.out)
    if others or lowering.activation_format(up.weight) != number_format:
        return False
    x = lowering._read(gate.x, number_format)
    lowering._stage(
        "gated_matmul",
        x=x,
        gate=(gate.matrix, gate.bias_vector),
        up=(up.matrix, up.bias_vector),
        out=lowering._define(glu.out, out_format),
        activation=glu.activation,
    )
    lowering.done.update((uses[0], up_index))
    return True
