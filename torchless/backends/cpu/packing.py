"""Which rows of which tensors make the matrices of experts, and how many tokens read them."""

from __future__ import annotations

from typing import Any

from torchless.backends.cpu.layout import Layout
from torchless.backends.cpu.lower_experts import Stack
from torchless.plan import Experts, Plan

__all__ = ["expert_jobs", "first_rows", "share_of_steps"]


def expert_jobs(layout: Layout, handles: dict[Any, int]) -> list[tuple[str, int, int, int]]:
    """What to pack for experts, in the order of the file: (tensor, matrix, first row in the tensor, rows)."""
    jobs = []
    for stack, first in handles.items():
        if stack not in layout.mapped:
            for expert, begin in enumerate(first_rows(layout, stack)):
                jobs.append((stack.weight, first + expert, begin, layout.expert(stack)[1]))
    order = {name: i for i, name in enumerate(dict.fromkeys(job[0] for job in jobs))}
    return sorted(jobs, key=lambda job: (order[job[0]], job[2]))


def first_rows(layout: Layout, stack: Stack) -> list[int]:
    """The first row of each expert in the tensor of a stack."""
    rows = layout.expert(stack)[1]
    return [(e * stack.num_parts + stack.part) * rows for e in range(layout.num_experts(stack))]


def share_of_steps(plan: Plan, weight: str) -> float:
    """How many of the tokens read a matrix of a stack: all, or those that choose an expert."""
    for op in plan.ops:
        if isinstance(op, Experts) and weight in (op.gate_weight, op.up_weight, op.down_weight):
            return op.routing.num_used / op.routing.num_experts
    return 1.0
