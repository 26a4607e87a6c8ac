"""Recurrent states at the ends of pages: where a sequence with a state can go on without computing what came before."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["KeptStates", "StateMemory"]


class StateMemory(Protocol):
    """What is needed of an executor."""

    def read_state(self, slot: int) -> npt.NDArray[np.uint8]:
        """See `backends.base.Executor`."""
        ...

    def write_state(self, slot: int, content: npt.NDArray[np.uint8], position: int) -> None:
        """See `backends.base.Executor`."""
        ...


class KeptStates:
    """Copies of states by the chain key of the page that they come after; the one used the longest ago goes first.

    Args:
        most: how many are kept.
        memory: whose states they are.
    """

    def __init__(self, most: int, memory: StateMemory) -> None:
        self._most = most
        self._memory = memory
        self._states: dict[bytes, npt.NDArray[np.uint8]] = {}  # the one used last comes last

    def __contains__(self, key: bytes) -> bool:
        return key in self._states

    def __len__(self) -> int:
        return len(self._states)

    def save(self, key: bytes, slot: int) -> None:
        """Keeps the state in a slot, or notes that it was used if it is kept."""
        known = self._states.pop(key, None)
        self._states[key] = self._memory.read_state(slot) if known is None else known
        while len(self._states) > self._most:
            del self._states[next(iter(self._states))]

    def restore(self, key: bytes, slot: int, position: int) -> None:
        """Puts a kept state into a slot, whose sequence goes on at a position."""
        state = self._states.pop(key)
        self._states[key] = state
        self._memory.write_state(slot, state, position)

    def forget(self, key: bytes) -> None:
        """Gives a state up."""
        self._states.pop(key, None)
