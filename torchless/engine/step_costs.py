"""What a step costs by its number of token rows, on this machine and with this model: measured as steps happen."""

from __future__ import annotations

from bisect import bisect

__all__ = ["StepCosts"]

# Of a measurement below or above the average: steps are held up, never sped up.
_WEIGHT_BELOW, _WEIGHT_ABOVE = 0.2, 0.05
_TRUSTED = (
    3  # measurements before which a number says nothing: the first steps of a kind are held up the most
)
_MEMORY = (
    5000  # measurements of any number of rows after which one that was not measured meanwhile is forgotten
)
_MOST_ROWS = 128  # beyond them steps are prompts, and nobody asks
_ASSUMED_SLOPE = 0.06  # of a step of one row, for each further row, before anything is known


class _Average:
    __slots__ = ("count", "measured_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds, self.count, self.measured_at = seconds, 0, 0

    def add(self, seconds: float, now: int) -> None:
        """The least of the first few, then a running average. One that was held up counts as twice the average."""
        self.count += 1
        self.measured_at = now
        if self.count <= _TRUSTED:
            self.seconds = min(self.seconds, seconds)
        else:
            weight = _WEIGHT_BELOW if seconds < self.seconds else _WEIGHT_ABOVE
            self.seconds += weight * (min(seconds, 2 * self.seconds) - self.seconds)


class StepCosts:
    """Seconds of a step by its rows: a running average for each number, and lines between those that were seen often.

    Example:
        >>> costs = StepCosts()
        >>> for _ in range(3):
        ...     costs.add(1, 0.010)
        ...     costs.add(3, 0.014)
        >>> round(costs.seconds(2), 3)
        0.012
    """

    def __init__(self) -> None:
        self._averages: dict[int, _Average] = {}
        self._known: list[int] = []  # numbers of rows that are trusted, ascending
        self._num_measured = 0

    def add(self, num_rows: int, seconds: float) -> None:
        """Notes how long a step took."""
        if num_rows > _MOST_ROWS:
            return
        self._num_measured += 1
        average = self._averages.get(num_rows)
        if average is None:
            average = self._averages[num_rows] = _Average(seconds)
        average.add(seconds, self._num_measured)
        if average.count == _TRUSTED or self._num_measured % _MEMORY == 0:
            self._forget()

    def knows(self, num_rows: int) -> bool:
        """Whether steps of so many rows were seen often enough."""
        average = self._averages.get(num_rows)
        return average is not None and average.count >= _TRUSTED

    def seconds(self, num_rows: int) -> float:
        """What a step of so many rows is expected to take; 0.0 as long as nothing is known."""
        average = self._averages.get(num_rows)
        if average is not None and average.count >= _TRUSTED:
            return average.seconds
        known = self._known
        if not known:
            return 0.0
        place = bisect(known, num_rows)
        if place == 0:
            return self._averages[known[0]].seconds
        low = known[place - 1]
        at_low = self._averages[low].seconds
        if place < len(known):
            share = (num_rows - low) / (known[place] - low)
            return at_low + share * max(self._averages[known[place]].seconds - at_low, 0.0)
        first = known[0]
        at_first = self._averages[first].seconds
        slope = max((at_low - at_first) / (low - first), 0.0) if low > first else _ASSUMED_SLOPE * at_first
        return at_low + slope * (num_rows - low)

    def _forget(self) -> None:
        """Leaves out what was measured long ago: contexts grow, and other programs come and go."""
        oldest = self._num_measured - _MEMORY
        self._averages = {
            rows: average for rows, average in self._averages.items() if average.measured_at >= oldest
        }
        self._known = sorted(rows for rows, average in self._averages.items() if average.count >= _TRUSTED)
