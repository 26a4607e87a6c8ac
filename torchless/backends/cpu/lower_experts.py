"""Lowers a mixture of experts to three stages: routing, the gated product by expert, the down product and the sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torchless.plan import Experts, Plan

if TYPE_CHECKING:
    from torchless.backends.cpu.lower import _Lowering

__all__ = ["Stack", "emit_experts", "gate_stacks", "stacks"]


class Stack(NamedTuple):
    """Matrices of all experts of a layer: part `part` of the `num_parts` that each expert of a tensor has.

    `bias` is the tensor of their biases, cut likewise.
    """

    weight: str
    bias: str | None
    part: int = 0
    num_parts: int = 1


def gate_stacks(op: Experts) -> tuple[Stack, Stack]:
    """Gate and up, which may be halves of one tensor."""
    if op.up_weight is None:
        return Stack(op.gate_weight, op.gate_bias, 0, 2), Stack(op.gate_weight, op.gate_bias, 1, 2)
    return Stack(op.gate_weight, op.gate_bias), Stack(op.up_weight, op.up_bias)


def stacks(plan: Plan) -> tuple[Stack, ...]:
    """All stacks of a plan, once each."""

    def each() -> Iterator[Stack]:
        for op in plan.ops:
            if isinstance(op, Experts):
                yield from (*gate_stacks(op), Stack(op.down_weight, op.down_bias))

    return tuple(dict.fromkeys(each()))


def emit_experts(lowering: _Lowering, index: int, op: Experts) -> None:
    """Appends the stages of `op`, which adds to the residual in place where it can."""
    gate, up = gate_stacks(op)
    routing = op.routing
    how = (
        *(routing.num_experts, routing.num_used, routing.scoring, routing.normalised, routing.scale),
        *(routing.num_groups, routing.num_used_groups, routing.group_best),
    )
    width = lowering.plan.shapes[op.down_weight][2]
    lowering._stage(
        "route",
        logits=lowering._read(op.logits, "f32"),
        bias=op.selection_bias,
        expert_scale=op.expert_scale,
        width=width,
        routing=how,
    )
    x = lowering._read(op.x, lowering.activation_format(gate.weight))
    up_x = lowering._read(op.x, lowering.activation_format(up.weight))
    inner = lowering._buffer(
        "tokens",
        lowering.activation_format(op.down_weight),
        width,
        copies=routing.num_used,
        spare=15 * routing.num_experts,  # rows of an expert may begin at a multiple of sixteen
    )
    lowering._stage(
        "experts_gated",
        x=x,
        up_x=up_x,
        gate=gate,
        up=up,
        out=inner,
        activation=op.activation,
        num_experts=routing.num_experts,
    )
    lowering._touch(inner, len(lowering.result.stages))
    residual = lowering._residual_of(index, op)
    if residual is None:
        out = lowering._define(op.out, "f32")
    else:
        add_index, add, other = residual
        out = lowering._read(other, "f32")
        lowering.locations[add.out.id, "f32"] = out
        lowering.done.add(add_index)
    lowering._stage(
        "experts_down",
        x=inner,
        down=Stack(op.down_weight, op.down_bias),
        out=out,
        accumulate=residual is not None,
        routing=how,
    )
    lowering._convert_for_consumers(op.out if residual is None else residual[1].out)
