"""How often drafted tokens are right: counted by what they rest on, the latest counting most."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Acceptance"]

_MEMORY = 0.97  # what is left of the weight of a trial at the next one of its source
_PRIOR = 0.6  # before anything is known
_PRIOR_TRIALS = 2.0
_COMMON_TRIALS = 4.0  # what all sequences together say counts as much as so many trials of one


class Acceptance:
    """Rates by source, of one sequence within those of all.

    Args:
        common: rates of all sequences, from which this one's start; None for those themselves.
    """

    def __init__(self, common: Acceptance | None = None) -> None:
        self._common = common
        self._counts: dict[Hashable, list[float]] = {}  # source -> right ones, trials

    def rate(self, source: Hashable) -> float:
        """The estimated probability that a token with this source is right, if those before it are."""
        right, trials = self._counts.get(source, (0.0, 0.0))
        if self._common is None:
            return (right + _PRIOR * _PRIOR_TRIALS) / (trials + _PRIOR_TRIALS)
        return (right + self._common.rate(source) * _COMMON_TRIALS) / (trials + _COMMON_TRIALS)

    def add(self, source: Hashable, *, is_right: bool) -> None:
        """Counts a trial."""
        counts = self._counts.get(source)
        if counts is None:
            counts = self._counts[source] = [0.0, 0.0]
        counts[0] = counts[0] * _MEMORY + is_right
        counts[1] = counts[1] * _MEMORY + 1.0
        if self._common is not None:
            self._common.add(source, is_right=is_right)
