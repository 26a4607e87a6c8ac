"""What the engine asks of a constraint on a sequence's tokens, and how a mask of tokens meets logits."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Constraint", "Mask", "masked"]

Mask = npt.NDArray[np.uint32]
"""ceil(vocab / 32) words; bit ``i % 32`` of word ``i // 32`` is set where token i may come next."""


class Constraint(Protocol):
    """Which tokens may come next in one sequence. Its state follows the generated tokens, not the pages.

    So preemption and a step that broke off leave it as it is. The engine calls `accept` for every token that it
    appends and `prepare` right behind it, so that the mask is computed beside the next step.
    """

    @property
    def must_stop(self) -> bool:
        """Whether the text is complete and no token may follow."""
        ...

    @property
    def is_satisfied(self) -> bool:
        """Whether the text so far is a whole one, be it that it may go on or not."""
        ...

    def prepare(self) -> None:
        """Starts to compute the mask of the next token in a worker thread; returns at once."""
        ...

    def mask(self) -> Mask | None:
        """The tokens that may come next, None where all may. Waits for what `prepare` began.

        Raises:
            GrammarError: the constraint would take too long to compute.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Goes on with a token that the mask allows. Raises GrammarError for another one."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Takes the last tokens back."""
        ...

    def fork(self) -> Constraint:
        """A constraint of its own in the same state."""
        ...


def masked(logits: npt.NDArray[np.float32], mask: Mask | None) -> npt.NDArray[np.float32]:
    """The logits with -inf for every token that the mask forbids: a copy, or themselves without a mask."""
    if mask is None:
        return logits
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=len(logits))
    return np.where(bits.view(np.bool_), logits, np.float32(-np.inf))
