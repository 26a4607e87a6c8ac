"""Random numbers that depend on a seed and a position only: nothing is carried from one token to the next.

Philox 4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a counter-based
generator: key = seed, counter = position. NumPy guarantees the stream of its Philox across versions.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CounterRandom"]


class CounterRandom:
    """Four uniform numbers for each position: the words of its block.

    Example:
        >>> CounterRandom(seed=1).uniform(5) == CounterRandom(seed=1).uniform(5)
        True
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Philox(key=seed)
        self._state = self._generator.state  # as made: its buffer is empty, so that the counter decides
        self._counter = self._state["state"]["counter"]

    def uniform(self, position: int, word: int = 0) -> float:
        """A number in [0, 1): the top 53 bits of a word of the position's block."""
        self._counter[0] = position
        self._generator.state = self._state
        bits = self._generator.random_raw() if word == 0 else self._generator.random_raw(word + 1)[word]
        return (int(bits) >> 11) * 2.0**-53
