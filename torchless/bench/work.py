"""How many bytes a step reads and how many operations it makes: what speeds are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from torchless import quants
from torchless.backends.base import PAGE_TOKENS
from torchless.plan import Experts, GatedDelta, Linear, Plan
from torchless.weights.source import WeightSource

__all__ = ["ModelWork", "Work", "count_work", "dot_kinds"]

ATTENTION = "attention"


@dataclass(slots=True)
class Work:
    """Sums over steps.

    Attributes:
        read_bytes: packed weights once a step; keys, values and recurrent state once a step and sequence.
        operations: two per multiply-add, by what is multiplied: ``int8``, ``bf16``, ``f32``, or ``attention``.
    """

    read_bytes: int = 0
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def num_operations(self) -> int:
        """Of all kinds."""
        return sum(self.operations.values())

    def add(self, kind: str, operations: int) -> None:
        """Counts more operations."""
        if operations:
            self.operations[kind] = self.operations.get(kind, 0) + operations


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What a model's plan costs, by the numbers that a step multiplies it with.

    Attributes:
        weight_bytes: packed matrices.
        kv_bytes_per_token: keys and values of all layers.
        token_operations: of the products, per token row, by kind.
        output_operations: of the products, per output row, by kind.
        attentions: (heads x head size, window or None, its share of kv_bytes_per_token) of each layer.
        experts: (bytes of all, how many, how many a token takes) of each layer with experts. A step is taken to read
            those that its tokens choose when all are equally likely.
        state_bytes: recurrent state of one sequence, read once a step.
    """

    weight_bytes: int
    kv_bytes_per_token: float
    token_operations: dict[str, int]
    output_operations: dict[str, int]
    attentions: tuple[tuple[int, int | None, float], ...]
    experts: tuple[tuple[int, int, int], ...] = ()
    state_bytes: int = 0

    def step(self, runs: Iterable[tuple[int, int]], num_outputs: int) -> Work:
        """Work of one step: `runs` are (first position, tokens) of the sequences in it."""
        work = Work(read_bytes=self.weight_bytes)
        num_tokens = 0
        for first, count in runs:
            num_tokens += count
            work.read_bytes += self.state_bytes
            for width, window, share in self.attentions:
                work.add(ATTENTION, 4 * width * _visible_keys(first, count, window))
                seen = first + count if window is None else min(first + count, window + count)
                work.read_bytes += round(seen * self.kv_bytes_per_token * share)
        for num_bytes, count, used in self.experts:
            work.read_bytes -= round(num_bytes * (1 - used / count) ** num_tokens)
        for kind, operations in self.token_operations.items():
            work.add(kind, operations * num_tokens)
        for kind, operations in self.output_operations.items():
            work.add(kind, operations * num_outputs)
        return work


def count_work(
    plan: Plan, source: WeightSource, kinds: dict[str, str], weight_bytes: int, kv_page_bytes: int
) -> ModelWork:
    """Counts a plan's work.

    Args:
        kinds: from `dot_kinds`.
        weight_bytes: of the packed matrices, as the backend says.
        kv_page_bytes: of one page of the cache.
    """
    token: dict[str, int] = {}
    output: dict[str, int] = {}
    experts = []
    for op in plan.ops:
        if isinstance(op, Experts):
            names = [name for name in (op.gate_weight, op.up_weight, op.down_weight) if name is not None]
            count, used = op.routing.num_experts, op.routing.num_used
            experts.append((sum(source.tensors[name].num_bytes for name in names), count, used))
            for name in names:
                kind = kinds.get(source.tensors[name].type, "f32")
                of_one = math.prod(source.tensors[name].shape[1:])
                token[kind] = token.get(kind, 0) + 2 * used * of_one
        if isinstance(op, GatedDelta):  # forgets, corrects, and is read twice
            token["f32"] = token.get("f32", 0) + 8 * op.num_heads * op.key_dim * op.value_dim
        if isinstance(op, Linear):
            counts = output if op.out.rows == "outputs" else token
            kind = kinds.get(source.tensors[op.weight].type, "f32")
            counts[kind] = counts.get(kind, 0) + 2 * op.x.width * op.out.width
    cached = sum(op.num_kv_heads * op.head_dim for op in plan.cache_ops)
    attentions = tuple(
        (op.num_heads * op.head_dim, op.window, op.num_kv_heads * op.head_dim / cached)
        for op in plan.attention_ops
    )
    states = sum(
        4 * op.num_heads * op.key_dim * op.value_dim for op in plan.ops if isinstance(op, GatedDelta)
    )
    kv_bytes = kv_page_bytes / PAGE_TOKENS
    return ModelWork(weight_bytes, kv_bytes, token, output, attentions, tuple(experts), states)


def dot_kinds(activations: str = "int8") -> dict[str, str]:
    """What a product with weights of each type multiplies: ``int8``, ``bf16`` or ``f32``, by type name.

    `activations` is the least exact kind (`torchless.activation_types`).
    """
    from torchless.backends.cpu.extension import load_extension

    formats = load_extension().formats(activations)
    return {quants.by_id(type_id).name: activation.partition("x")[0] for type_id, _, _, activation in formats}


def _visible_keys(first: int, count: int, window: int | None) -> int:
    """Keys that tokens at positions ``first .. first + count - 1`` see, added up."""
    last = first + count
    if window is None or last <= window:
        return (first + 1 + last) * count // 2
    num_growing = max(0, window - first)  # tokens that see fewer keys than the window holds
    return (first + 1 + first + num_growing) * num_growing // 2 + window * (count - num_growing)
