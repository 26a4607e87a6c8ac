"""What layers of Gemma 4 get besides: an embedding of the token for each, and the cache of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchless.plan import Piece, Plan, Value

__all__ = ["add_layer_input", "layer_inputs", "shared_cache"]


def layer_inputs(plan: Plan, x: Value, num_layers: int, length: int, eps: float) -> Value:
    """What the layers get of each token, one layer's `length` columns behind another's.

    The mean, but for a factor, of what a table of its own (``per_layer_token_embd``) says of the token and of what its
    embedding `x` is projected to.
    """
    projected = plan.scale(plan.linear(x, "per_layer_model_proj.weight"), x.width**-0.5)
    projected = plan.rms_norm(projected, "per_layer_proj_norm.weight", eps=eps, num_heads=num_layers)
    stored = plan.embed("per_layer_token_embd.weight", scale=math.sqrt(length))
    return plan.scale(plan.add(projected, stored), math.sqrt(0.5))


def add_layer_input(plan: Plan, x: Value, inputs: Value, layer: int, length: int) -> Value:
    """A layer's columns of `inputs`, gated by x and projected to its width."""
    gate = plan.linear(x, f"blk.{layer}.inp_gate.weight")
    gated = plan.glu(gate, Piece(inputs, layer * length, length), activation="gelu_tanh")
    return plan.linear(gated, f"blk.{layer}.proj.weight")


def shared_cache(are_local: Sequence[bool], num_shared: int, layer: int) -> int:
    """The layer whose keys and values a layer reads.

    Its own, or, of the `num_shared` last ones, those of the last layer before them that has a window as it does.
    """
    first_shared = len(are_local) - num_shared
    if layer < first_shared:
        return layer
    return max(i for i in range(first_shared) if are_local[i] == are_local[layer])
