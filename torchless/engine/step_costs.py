"""What a step costs by its number of token rows, on this machine and with this model: measured as steps happen."""

from __future__ import annotations

__all__ = ["StepCosts"]

# Of a measurement below or above the average: steps are held up, never sped up.
_WEIGHT_BELOW, _WEIGHT_ABOVE = 0.2, 0.05
_MOST_ROWS = 128  # beyond them steps are prompts, and nobody asks
_ASSUMED_SLOPE = 0.06  # of a step of one row, for each further row, before anything is known


class StepCosts:
    """Seconds of a step by its rows: a running average for each number, and lines between those that were seen.

    Example:
        >>> costs = StepCosts()
        >>> costs.add(1, 0.010)
        >>> costs.add(3, 0.014)
        >>> round(costs.seconds(2), 3)
        0.012
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._known: list[int] = []  # the keys, ascending

    def add(self, num_rows: int, seconds: float) -> None:
        """Notes how long a step took. A step that was held up counts as twice an ordinary one at most."""
        if num_rows > _MOST_ROWS:
            return
        old = self._seconds.get(num_rows)
        if old is None:
            self._seconds[num_rows] = seconds
            self._known = sorted(self._seconds)
        else:
            weight = _WEIGHT_BELOW if seconds < old else _WEIGHT_ABOVE
            self._seconds[num_rows] = old + weight * (min(seconds, 2 * old) - old)

    def knows(self, num_rows: int) -> bool:
        """Whether a step of so many rows was seen."""
        return num_rows in self._seconds

    def seconds(self, num_rows: int) -> float:
        """What a step of so many rows is expected to take; 0.0 as long as no step was seen."""
        found = self._seconds.get(num_rows)
        if found is not None:
            return found
        if not self._known:
            return 0.0
        below = [rows for rows in self._known if rows < num_rows]
        above = [rows for rows in self._known if rows > num_rows]
        if not below:
            return self._seconds[above[0]]
        low = below[-1]
        if above:
            high = above[0]
            share = (num_rows - low) / (high - low)
            return self._seconds[low] + share * max(self._seconds[high] - self._seconds[low], 0.0)
        first = self._known[0]
        slope = _ASSUMED_SLOPE * self._seconds[first]
        if low > first:
            slope = max((self._seconds[low] - self._seconds[first]) / (low - first), 0.0)
        return self._seconds[low] + slope * (num_rows - low)
