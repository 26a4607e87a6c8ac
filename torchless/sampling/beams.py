"""Beam search: the likeliest texts, sought by following several beginnings at once. What is kept, and when it ends.

The rules are those of Hugging Face transformers, so that its settings mean the same here: of all continuations of all
beams the likeliest are looked at; those that end are kept as finished, scored by their log probability divided by a
power of their length; the best of the others go on. (Log probabilities are sums in float64 here, in float32 there.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from torchless.sampling.candidates import largest
from torchless.sampling.logprobs import log_total

__all__ = ["BeamSearch", "Continuations", "EarlyStopping", "Hypothesis"]

EarlyStopping: TypeAlias = bool | Literal["never"]


class Hypothesis(NamedTuple):
    """A beginning of an answer, or a whole one.

    Attributes:
        token_ids: its tokens, an end token included.
        logprob: log probability of all of them.
        score: what finished ones are compared by.
    """

    token_ids: tuple[int, ...] = ()
    logprob: float = 0.0
    score: float = 0.0


class Continuations(NamedTuple):
    """The likeliest tokens behind a beam, the likeliest first, and their log probabilities."""

    token_ids: list[int]
    logprobs: list[float]


class BeamSearch:
    """The state of one search. Knows nothing of the model: `advance` is told what it says.

    Args:
        num_beams: beginnings that are followed.
        max_tokens: most tokens of an answer.
        end_ids: tokens that end one.
        length_penalty: the power of the length; above 0 long answers are preferred, below 0 short ones.
        early_stopping: True ends once there are `num_beams` finished answers, False once no beam as long as now would
            beat them, "never" once no beam of any allowed length would.

    Attributes:
        running: the beams, the likeliest first; one, which is empty, before the first step.
        finished: the best answers so far, the best first.

    Example:
        >>> search = BeamSearch(2, 3, end_ids=[0])
        >>> search.advance([Continuations([1, 2, 0], [-0.5, -1.0, -3.0])])
        [(0, 1), (0, 2)]
    """

    def __init__(
        self,
        num_beams: int,
        max_tokens: int,
        end_ids: Collection[int],
        *,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
    ) -> None:
        self.num_beams = num_beams
        self.max_tokens = max_tokens
        self._end_ids = frozenset(end_ids)
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self.num_candidates = max(2, 1 + len(self._end_ids)) * num_beams
        self.running = [Hypothesis()]
        self.finished: list[Hypothesis] = []

    def continuations(self, logits: npt.NDArray[np.float32]) -> Continuations:
        """As many of the likeliest tokens as `advance` needs, from a row of logits (vocab,)."""
        peak, total = log_total(logits)
        ids = largest(logits, self.num_candidates)
        return Continuations(ids.tolist(), (logits[ids].astype(np.float64) - peak - total).tolist())

    def advance(self, rows: Sequence[Continuations]) -> list[tuple[int, int]] | None:
        """Goes on by a token.

        Args:
            rows: what may follow each running beam.

        Returns:
            Of each beam that runs now: which one it continues, and by which token. None at the end.
        """
        candidates = sorted(
            (-(beam.logprob + logprob), i, token_id)
            for i, (beam, row) in enumerate(zip(self.running, rows, strict=True))
            for token_id, logprob in zip(row.token_ids, row.logprobs, strict=True)
        )[: self.num_candidates]
        length = len(self.running[0].token_ids) + 1
        ends = [length == self.max_tokens or token_id in self._end_ids for _, _, token_id in candidates]
        found = [
            Hypothesis((*self.running[i].token_ids, token_id), -cost, -cost / length**self._length_penalty)
            for cost, i, token_id in candidates
        ]
        new = [one for one, has_ended in zip(found[: self.num_beams], ends, strict=False) if has_ended]
        if not (self._early_stopping is True and self._is_full):
            kept = sorted(
                [*self.finished, *new], key=lambda one: -one.score
            )  # of equal ones the earlier first
            self.finished = kept[: self.num_beams]
        going_on = [place for place, has_ended in enumerate(ends) if not has_ended][: self.num_beams]
        self.running = [found[place] for place in going_on]
        if not going_on or (
            self._is_full and (self._early_stopping is True or not self._can_improve(length))
        ):
            return None
        return [(candidates[place][1], candidates[place][2]) for place in going_on]

    @property
    def _is_full(self) -> bool:
        return len(self.finished) == self.num_beams

    def _can_improve(self, length: int) -> bool:
        """Whether the likeliest beam may still become better than the worst finished answer."""
        if self._early_stopping == "never" and self._length_penalty > 0:
            length = self.max_tokens
        best: float = self.running[0].logprob / length**self._length_penalty
        return best > self.finished[-1].score
