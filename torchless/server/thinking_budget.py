"""A limit on the tokens that a model thinks: once they are used up, the end of its reasoning is written for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ThinkingBudget"]


class ThinkingBudget:
    """A function for `SamplingParams.processors`.

    It depends on the tokens alone, so that drafted tokens, preemption and seeds mean what they mean elsewhere.

    Args:
        num_tokens: of the answer, its first mark included, after which the reasoning ends.
        begin: tokens that begin the reasoning; empty where the prompt has begun it.
        end: tokens that tell that it has ended by itself.
        close: tokens that are written to end it.
    """

    def __init__(
        self, num_tokens: int, begin: Sequence[int], end: Sequence[int], close: Sequence[int]
    ) -> None:
        self._num_tokens = num_tokens
        self._begin, self._end, self._close = tuple(begin), tuple(end), tuple(close)
        self._num_prompt_tokens: int | None = None

    def __call__(self, ids: npt.NDArray[Any], logits: npt.NDArray[np.float32]) -> None:
        if self._num_prompt_tokens is None:
            self._num_prompt_tokens = len(ids)  # the first call is that for the first token
        place = len(ids) - self._num_prompt_tokens - self._num_tokens
        if not 0 <= place < len(self._close):
            return
        first = self._num_prompt_tokens
        thought = tuple(int(index) for index in ids[first : first + self._num_tokens])
        if _holds(thought, self._begin) and not _holds(thought, self._end):
            wanted = self._close[place]
            logits[:] = -np.inf
            logits[wanted] = 0.0


def _holds(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    """Whether a part is somewhere in a list of tokens; an empty one always is."""
    return any(ids[start : start + len(part)] == part for start in range(len(ids) - len(part) + 1))
