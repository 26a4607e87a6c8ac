"""The logits of a step: tokens are picked from them, and whatever else wants them reads them."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Best
from torchless.constraints.constraint import masked
from torchless.engine.sequence import Sequence, TakeBack
from torchless.errors import GrammarError, InvalidRequestError

__all__ = ["OutputRows", "end_if_due"]


class OutputRows(NamedTuple):
    """What a step computed for its output rows: all logits, or the best of each row."""

    logits: npt.NDArray[np.float32]
    best: Best | None

    def of(self, first: int, count: int) -> npt.NDArray[np.float32]:
        """The rows of one run."""
        return self.logits[first : first + count]

    def pick(self, sequence: Sequence, row: int) -> int | None:
        """The token that a sequence's sampler picks behind its history; None where that failed, or its group picks."""
        sampler, constraint = sequence.sampler, sequence.constraint
        assert sampler is not None
        try:
            if self.best is not None:
                return sampler.pick_best(self.best.ids[row], self.best.logits[row], sequence.history)
            logits = self.logits[row]
            if sequence.group is not None:
                sequence.group.note(sequence, logits)
                return None
            if constraint is not None:
                logits = masked(logits, constraint.mask())
            forbidden = sequence.forbidden.get(sequence.num_tokens)
            if forbidden is not None:
                logits = _without(logits, forbidden)
            return sampler.pick(logits, sequence.history)
        except Exception as error:  # of its constraint, its processors or its logits: the others go on
            sequence.failure = error
            return None

    def append(self, sequence: Sequence, token: int, row: int) -> bool:
        """Appends a picked token, whose row is read where that is wanted, and tells whoever waits for it.

        A constraint begins with what may follow.

        Returns:
            Whether tokens were taken back, this one included.
        """
        if sequence.digest is not None:
            sequence.digest.update(self.logits[row].data)
        if sequence.logprobs is not None:
            sequence.logprobs.add(self.logits[row], token)
        sequence.append(token)
        constraint = sequence.constraint
        if constraint is not None:
            try:
                constraint.accept(token)
            except GrammarError as error:
                sequence.failure = error
                return False
        verdict = sequence.accept(token) if sequence.accept is not None else None
        if isinstance(verdict, TakeBack):
            _take_back(sequence, verdict.position)
            return True
        sequence.finish_reason = verdict
        if constraint is None or sequence.finish_reason is not None:
            return False
        if constraint.must_stop:
            sequence.finish_reason = "stop"
        elif not sequence.is_at_end:
            constraint.prepare()
        return False

    def note_prompt(self, sequence: Sequence, first: int, count: int) -> None:
        """Reads the rows behind the next tokens of a prompt that are computed now."""
        assert sequence.prompt_logprobs is not None
        prompt = sequence.tokens[: sequence.num_prompt_tokens]
        sequence.prompt_logprobs.add_prompt(sequence.num_computed_tokens, self.of(first, count), prompt)


def end_if_due(sequence: Sequence) -> None:
    """Ends a sequence that failed or is as long as it may become."""
    if sequence.failure is not None:
        sequence.finish_reason = "cancelled"
    if sequence.finish_reason is None and sequence.is_at_end:
        sequence.finish_reason = "length"


def _take_back(sequence: Sequence, position: int) -> None:
    """The tokens from a position on, which a constraint may have accepted."""
    constraint = sequence.constraint
    if constraint is not None:
        try:
            constraint.rollback(sequence.num_tokens - position)
        except GrammarError as error:
            sequence.failure = error
            return
        constraint.prepare()
    sequence.take_back(position)


def _without(logits: npt.NDArray[np.float32], forbidden: Collection[int]) -> npt.NDArray[np.float32]:
    """A copy of the logits without some tokens. Raises InvalidRequestError where none is left."""
    left: npt.NDArray[np.float32] = logits.copy()
    left[list(forbidden)] = -np.inf
    if left.max() == -np.inf:
        raise InvalidRequestError(
            "every token that could go on here completes a banned text: the constraint on the text allows no other; "
            "ban less, or allow more"
        )
    return left
