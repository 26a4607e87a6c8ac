"""Ways in which the states of a text's tokens become one vector."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["POOLINGS", "Pooling"]

Pooling = Literal["mean", "cls", "last"]
"""The mean of all, the first token's, or the last one's."""

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
