"""Lowers attention to two stages: heads normalised, rotated and stored in the cache, then attention over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchless.backends.cpu.stages import F32
from torchless.errors import UnsupportedError
from torchless.plan import Attention, RmsNorm, Rope, Value

if TYPE_CHECKING:
    from torchless.backends.cpu.lower import _Lowering

__all__ = ["ONES", "emit_attention", "is_made_by_attention", "norm_name"]

ONES = "ones:"
"""How names of vectors of ones begin, which norms without a weight multiply with; their length follows."""


def emit_attention(lowering: _Lowering, op: Attention) -> None:
    """Appends two stages: heads made and stored in the cache, then attention itself.

    Heads are made in place, but for values that start from what keys start from, too: they come first, and elsewhere.
    """
    parts: list[tuple[int, int, int, int, int, str | None, float]] = []
    places = {}
    for value, num_heads in ((op.v, op.num_kv_heads), (op.q, op.num_heads), (op.k, op.num_kv_heads)):
        if value is None:
            continue
        rope, norm, start = _path_of(lowering, value)
        source = buffer = lowering._read(start, F32)
        if value == op.v and norm is not None and len(lowering.uses[start.id]) > 1:
            buffer = lowering._define(value, F32)
        places[value.id] = buffer
        if rope is None and norm is None:
            continue
        index = -1 if rope is None else [spec for spec, _, _ in lowering.result.ropes].index(rope.spec)
        weight, eps = (None, 0.0) if norm is None else (norm_name(norm), norm.eps)
        parts.append((buffer, source, num_heads, op.head_dim, index, weight, eps))
    _check_in_place(lowering, op)
    q = places[op.q.id]
    k, v = (-1 if value is None else places[value.id] for value in (op.k, op.v))
    lowering._stage("rope_kv", parts=parts, k=k, v=v, layer=op.layer)
    for buffer in (q, k, v):
        if buffer >= 0:
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


def norm_name(norm: RmsNorm) -> str:
    """The vector that a norm multiplies with: its weight, or ones, by a name that tells how many."""
    return norm.weight or f"{ONES}{norm.x.width // norm.num_heads}"


def is_made_by_attention(lowering: _Lowering, norm: RmsNorm) -> bool:
    """Whether nothing but attention, or the rotation before it, reads these heads, which it can normalise itself."""
    readers = [lowering.plan.ops[index] for index in lowering.uses[norm.out.id]]
    head_dim = norm.x.width // norm.num_heads
    return bool(readers) and all(
        isinstance(op, Rope | Attention) and op.head_dim == head_dim for op in readers
    )


def _path_of(lowering: _Lowering, value: Value) -> tuple[Rope | None, RmsNorm | None, Value]:
    """The rope and the norm of heads that make queries, keys or values, and the value that they start from."""
    rope: Rope | None = None
    norm: RmsNorm | None = None
    op = next(op for op in lowering.plan.ops if op.out == value)
    if isinstance(op, Rope):
        rope, value = op, op.x
        op = next(op for op in lowering.plan.ops if op.out == value)
    if isinstance(op, RmsNorm) and is_made_by_attention(lowering, op):
        norm, value = op, op.x
    return rope, norm, value


def _check_in_place(lowering: _Lowering, op: Attention) -> None:
    """Raises UnsupportedError where others read what this attention changes in place."""
    changed = []
    start_of_values = None
    for value in (op.q, op.k, op.v):
        if value is None:
            continue
        rope, norm, start = _path_of(lowering, value)
        if value == op.v and norm is not None:
            start_of_values = start
        elif rope is not None or norm is not None:
            changed += [value, *(step.x for step in (rope, norm) if step is not None)]
    for value in changed:
        if len(lowering.uses[value.id]) > 1 + (value == start_of_values):
            raise UnsupportedError(
                "the cpu backend rotates in place, but the plan uses a rotated value twice"
            )
