"""The tokens that may still be picked, with their logits; steps of the chain narrow and change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LONG", "Candidates", "KeepLargest", "Step", "largest", "weights"]

LONG = 4096
"""From so many candidates on `weights` is in single precision."""


class Candidates:
    """Tokens and logits between two steps of the chain.

    Attributes:
        logits: one per candidate; float32 while all tokens are candidates, float64 after.
        ids: their token ids, or None while all tokens are candidates.
        is_sorted: logits fall (equal ones in ascending order of id).
    """

    __slots__ = ("_is_shared", "ids", "is_sorted", "logits")

    def __init__(self, logits: npt.NDArray[np.float32]) -> None:
        """All tokens; `logits` is not written to."""
        self.logits: npt.NDArray[np.floating[Any]] = logits
        self.ids: npt.NDArray[np.intp] | None = None
        self.is_sorted = False
        self._is_shared = True

    @classmethod
    def of_best(cls, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> Candidates:
        """The largest logits, sorted; what `keep_largest` would have left of all."""
        best = cls(logits)
        best.logits = logits.astype(np.float64)
        best.ids = ids.astype(np.intp)
        best.is_sorted = True
        best._is_shared = False
        return best

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def peak(self) -> np.floating[Any]:
        """The largest logit."""
        peak: np.floating[Any] = self.logits[0] if self.is_sorted else self.logits.max()
        return peak

    def token_id(self, index: int) -> int:
        """Token id of candidate `index`."""
        return index if self.ids is None else int(self.ids[index])

    def writable_logits(self) -> npt.NDArray[np.floating[Any]]:
        """The logits, copied first where they belong to the executor."""
        if self._is_shared:
            self.logits = self.logits.copy()
            self._is_shared = False
        return self.logits

    def keep(self, indices: npt.NDArray[np.intp]) -> None:
        """Keeps the candidates at `indices`, in that order."""
        self.ids = indices if self.ids is None else self.ids[indices]
        self.logits = self.logits[indices].astype(np.float64, copy=False)
        self._is_shared = False

    def indices_of(self, token_ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
        """Where these tokens stand among the candidates; -1 for those that are none."""
        if self.ids is None:
            return token_ids.astype(np.intp, copy=False)
        order = self.ids.argsort()
        places = np.minimum(self.ids.searchsorted(token_ids, sorter=order), len(self.ids) - 1)
        found: npt.NDArray[np.intp] = np.where(self.ids[order[places]] == token_ids, order[places], -1)
        return found

    def probabilities(self) -> npt.NDArray[np.float64]:
        """Of each candidate among the candidates."""
        weights = np.exp(np.subtract(self.logits, self.peak, dtype=np.float64))
        probabilities: npt.NDArray[np.float64] = weights / weights.sum()
        return probabilities

    def replace_logits(self, logits: npt.NDArray[np.floating[Any]]) -> None:
        """New logits for all candidates, in the same order of size."""
        self.logits = logits
        self._is_shared = False

    def keep_where(self, kept: npt.NDArray[np.bool_]) -> None:
        """Keeps the candidates for which `kept` is true, in their order."""
        if not kept.all():
            self.keep(kept.nonzero()[0])

    def keep_first(self, count: int) -> None:
        """Keeps the first `count` candidates of a sorted list."""
        if count < len(self.logits):
            self.logits = self.logits[:count]
            self.ids = self.ids[:count] if self.ids is not None else None

    def keep_largest(self, count: int) -> None:
        """Keeps the `count` largest, sorted."""
        if self.is_sorted:
            self.keep_first(count)
            return
        self.keep(largest(self.logits, count))
        self.is_sorted = True


@dataclass(frozen=True, slots=True)
class KeepLargest:
    """A step that keeps the `count` largest. A chain that begins with it needs no others (`Sampler.num_best`)."""

    count: int

    def __call__(self, candidates: Candidates, history: npt.NDArray[np.int32]) -> None:
        candidates.keep_largest(self.count)


Step = Callable[[Candidates, npt.NDArray[np.int32]], None]
"""One step of the chain: changes the candidates. The second argument is all tokens so far, prompt first."""


def weights(logits: npt.NDArray[np.floating[Any]], peak: np.floating[Any]) -> npt.NDArray[np.floating[Any]]:
    """exp(logits - peak): probabilities but for a factor, 1 for the most likely token.

    In double precision, but for a whole vocabulary, where single precision takes an eighth of the time: its relative
    error of about 1e-6 is far below what tells two draws of a million apart.
    """
    if len(logits) < LONG:
        exact: npt.NDArray[np.float64] = np.exp(np.subtract(logits, peak, dtype=np.float64))
        return exact
    short: npt.NDArray[np.float32] = np.subtract(logits, peak, dtype=np.float32, casting="same_kind")
    return np.exp(short, out=short)


def largest(values: npt.NDArray[np.floating[Any]], count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` largest values, largest first; of equal ones the lower index first.

    Long arrays are cut first: the values are dealt into columns; the count-th largest of the column
    maxima is not above the count-th largest value, so only values from there on can be among the largest.
    Two streaming passes replace a selection over everything.
    """
    count = min(count, len(values))
    num_columns = max(1024, 8 * count)
    if len(values) < 4 * num_columns:
        chosen = np.arange(len(values))
    else:
        num_rows = len(values) // num_columns
        table = values[: num_rows * num_columns].reshape(num_rows, num_columns)
        maxima = table.max(axis=0)
        bound = np.partition(maxima, num_columns - count)[num_columns - count]
        (chosen,) = (values >= bound).nonzero() if bound > -np.inf else _few_and_first(values, count)
    if len(chosen) > 4 * count + 1024:
        chosen = _cut(values, chosen, count)
    order = (-values[chosen]).argsort(kind="stable")
    return chosen[order[:count]]


def _few_and_first(values: npt.NDArray[np.floating[Any]], count: int) -> tuple[npt.NDArray[np.intp]]:
    """Indices of all values above -inf, and of the first others: what a mask has left of a vocabulary."""
    (allowed,) = (values > -np.inf).nonzero()
    (others,) = (values[: count + len(allowed)] == -np.inf).nonzero()
    chosen = np.concatenate((allowed, others[:count]))
    chosen.sort()
    return (chosen,)


def _cut(
    values: npt.NDArray[np.floating[Any]], chosen: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.intp]:
    """Exactly `count` of the ascending indices `chosen`: the largest, of equal ones the first."""
    kept = values[chosen]
    bound = np.partition(kept, len(kept) - count)[len(kept) - count]
    (above,) = (kept > bound).nonzero()
    (equal,) = (kept == bound).nonzero()
    places = np.concatenate((above, equal[: count - len(above)]))
    places.sort()
    cut: npt.NDArray[np.intp] = chosen[places]
    return cut
