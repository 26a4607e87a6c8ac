"""What the steps of one sequence know beside its parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torchless.sampling.random_numbers import CounterRandom

__all__ = ["SamplerContext"]


@dataclass(frozen=True, slots=True)
class SamplerContext:
    """Given to every step when it is built.

    Attributes:
        eos_ids: tokens that end the text.
        num_prompt_tokens: tokens of the history that were not generated.
        token_text: text of a token, for the step that looks for strings in it; None where nobody gave it.
        random: numbers by position.
    """

    eos_ids: Collection[int]
    num_prompt_tokens: int
    token_text: Callable[[int], str] | None
    random: CounterRandom
