"""Lowers attention to two stages: heads normalised, rotated and stored in the cache, then attention over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchless.backends.cpu.stages import F32
from torchless.errors import UnsupportedError
from torchless.plan import Attention, RmsNorm, Rope, Value

if TYPE_CHECKING:
    from torchless.backends.cpu.lower import _Lowering

__all__ = ["emit_attention"]


def emit_attention(lowering: _Lowering, op: Attention) -> None:
    """Appends two stages: keys and values on their way to the cache, then attention itself."""
    parts = []
    buffers = []
    for value, num_heads in ((op.q, op.num_heads), (op.k, op.num_kv_heads)):
        rope, norm, start = _path_of(lowering, value)
        buffer = lowering._read(start, F32)
        buffers.append(buffer)
        if rope is None and norm is None:
            continue
        index = -1 if rope is None else [spec for spec, _, _ in lowering.result.ropes].index(rope.spec)
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
        parts.append((buffer, num_heads, op.head_dim, index, weight, eps))
    q, k = buffers
    v = lowering._read(op.v, F32)
    lowering._stage("rope_kv", parts=parts, k=k, v=v, layer=op.layer)
    for buffer in (q, k, v):
        lowering._touch(buffer, len(lowering.result.stages))
    out = lowering._define(op.out, F32)
    lowering._stage(
        "attention",
        q=q,
        out=out,
        layer=op.layer,
        num_heads=op.num_heads,
        scale=op.scale,
        window=op.window or 0,
        softcap=op.softcap or 0.0,
        slopes=list(op.slopes or ()),
        sinks=op.sinks,
        rope_kv=lowering.fuse,
        causal=op.causal,
    )
    lowering._convert_for_consumers(op.out)


def _path_of(lowering: _Lowering, value: Value) -> tuple[Rope | None, RmsNorm | None, Value]:
    """The rope and the norm of heads that make queries or keys in place, and the value that they start from."""
    found: list[Rope | RmsNorm] = []
    for kind in (Rope, RmsNorm):
        op = next(op for op in lowering.plan.ops if op.out == value)
        if isinstance(op, kind) and (isinstance(op, Rope) or op.num_heads > 1):
            if len(lowering.uses[value.id]) > 1 or len(lowering.uses[op.x.id]) > 1:
                raise UnsupportedError(
                    "the cpu backend rotates in place, but the plan uses a rotated value twice"
                )
            found.append(op)
            value = op.x
    rope = next((op for op in found if isinstance(op, Rope)), None)
    return rope, next((op for op in found if isinstance(op, RmsNorm)), None), value
