"""Which tokens of a sequence are computed in fast arithmetic: a token's place alone decides."""

from __future__ import annotations

from torchless.engine.sequence import Sequence

__all__ = ["FEWEST_FAST_TOKENS", "num_fast_tokens"]

FEWEST_FAST_TOKENS = 64
"""Shorter prompts are exact in fast mode too: to make bytes of the weights would take longer than it saves."""


def num_fast_tokens(sequence: Sequence) -> int:
    """How many tokens of a sequence, the first ones, are computed in fast arithmetic in fast mode."""
    return sequence.num_prompt_tokens if sequence.num_prompt_tokens >= FEWEST_FAST_TOKENS else 0
