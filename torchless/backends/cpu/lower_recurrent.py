"""Lowers layers with recurrent state: a convolution, the gated delta rule, and norms of heads behind a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchless.backends.cpu.lower_attention import norm_name
from torchless.backends.cpu.stages import F32, LoweredPlan
from torchless.plan import CausalConv, GatedDelta, Glu, Piece, Plan, RmsNorm

if TYPE_CHECKING:
    from torchless.backends.cpu.lower import _Lowering

__all__ = ["emit_gated_norm", "emit_recurrent", "is_gated", "scratch_needs", "state_sizes"]


def emit_recurrent(lowering: _Lowering, op: CausalConv | GatedDelta) -> None:
    """Appends the one stage of `op`."""
    x = lowering._read(op.x, F32)
    if isinstance(op, CausalConv):
        taps = lowering.plan.shapes[op.weight][1]
        out = lowering._define(op.out, F32)
        lowering._stage("causal_conv", x=x, weight=op.weight, taps=taps, out=out, state=op.state)
    else:

        def columns(piece: Piece) -> tuple[int, int, int, int]:
            return lowering._read(piece.x, F32), piece.start, piece.width, piece.stride

        lowering._stage(
            "gated_delta",
            x=x,
            step=columns(op.step),
            beta=columns(op.beta),
            decay=op.decay,
            step_bias=op.step_bias,
            shape=(op.num_key_heads, op.num_heads, op.key_dim, op.value_dim, op.is_tiled),
            out=lowering._define(op.out, F32),
            state=op.state,
        )
    lowering._convert_for_consumers(op.out)


def is_gated(lowering: _Lowering, norm: RmsNorm) -> bool:
    """Whether a GLU alone reads these normalised heads, and multiplies them."""
    ops = [lowering.plan.ops[index] for index in lowering.uses[norm.out.id]]
    is_of_heads = norm.num_heads > 1
    return is_of_heads and len(ops) == 1 and isinstance(ops[0], Glu) and norm.out == ops[0].up != ops[0].gate


def emit_gated_norm(lowering: _Lowering, op: Glu) -> bool:
    """The norm and the GLU in one stage; False where `op` multiplies something else."""
    norm = next((other for other in lowering.plan.ops if other.out == op.up), None)
    if not isinstance(norm, RmsNorm) or not is_gated(lowering, norm):
        return False
    x, gate = lowering._read(norm.x, F32), lowering._read(op.gate, F32)
    direct, rest = lowering._formats_of(op.out)
    lowering._stage(
        "gated_norm",
        x=x,
        weight=norm_name(norm),
        num_heads=norm.num_heads,
        eps=norm.eps,
        gate=gate,
        activation=op.activation,
        out=lowering._define(op.out, direct),
    )
    lowering._convert(op.out, rest)
    return True


def state_sizes(plan: Plan, core: Any) -> list[int]:
    """Floats of each state of the plan, as the C++ core lays it out."""

    def size(op: CausalConv | GatedDelta) -> int:
        if isinstance(op, CausalConv):
            return int(core.causal_conv_state_floats(*plan.shapes[op.weight]))
        return int(core.gated_delta_state_floats(op.num_heads, op.key_dim, op.value_dim))

    return [size(op) for op in plan.state_ops]


def scratch_needs(plan: Plan, lowered: LoweredPlan) -> tuple[list[int], list[tuple[str, int]]]:
    """What the core counts scratch from: key widths of delta rules, and (format, width) of gated norms' results."""
    norms = [stage.args["out"] for stage in lowered.stages if stage.kind == "gated_norm"]
    buffers = [lowered.buffers[out] for out in norms if isinstance(out, int)]
    key_dims = [op.key_dim for op in plan.state_ops if isinstance(op, GatedDelta)]
    return key_dims, [(buffer.format, buffer.width) for buffer in buffers]
