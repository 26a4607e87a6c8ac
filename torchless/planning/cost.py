"""What one step costs by weight type: bytes that it reads, operations that it makes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from torchless.plan import Experts, HeadsLinear, Linear, Plan
from torchless.weights.source import WeightSource

__all__ = ["StepCost", "step_cost"]


@dataclass(slots=True)
class StepCost:
    """Sums over the products of one step.

    Attributes:
        read_bytes: weights, each read once, by type.
        operations: two per multiply-add, by type.
    """

    read_bytes: dict[str, int] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)

    def add(self, type_name: str, num_bytes: float, operations: float) -> None:
        """Counts more."""
        self.read_bytes[type_name] = self.read_bytes.get(type_name, 0) + round(num_bytes)
        self.operations[type_name] = self.operations.get(type_name, 0) + round(operations)


def step_cost(plan: Plan, source: WeightSource, num_tokens: int, num_outputs: int) -> StepCost:
    """Counts the products of a step with so many token rows, of which `num_outputs` want logits.

    A step reads those experts that its tokens choose when all are equally likely.
    """
    cost = StepCost()
    for name, num_rows, share, used in _products(plan, num_tokens, num_outputs):
        info = source.tensors[name]
        cost.add(info.type, share * info.num_bytes, 2 * num_rows * used * math.prod(info.shape))
    return cost


def _products(plan: Plan, num_tokens: int, num_outputs: int) -> Iterator[tuple[str, int, float, float]]:
    """(weight, rows, share of its bytes that is read, share of its weights that one row meets)."""
    for op in plan.ops:
        if isinstance(op, Linear):
            yield op.weight, num_outputs if op.out.rows == "outputs" else num_tokens, 1.0, 1.0
        elif isinstance(op, HeadsLinear):
            yield op.head_weights, num_tokens, 1.0, 1.0
        elif isinstance(op, Experts):
            used = op.routing.num_used / op.routing.num_experts
            for name in (op.gate_weight, op.up_weight, op.down_weight):
                if name is not None:
                    yield name, num_tokens, 1 - (1 - used) ** num_tokens, used
