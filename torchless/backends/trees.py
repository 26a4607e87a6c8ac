"""Trees of drafted tokens in a batch: which row follows which, checked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Batch

__all__ = ["is_tree", "path_to", "run_parents"]


def run_parents(batch: Batch, run: int) -> list[int]:
    """Of each row of a run, the row that it follows, counted from the run's first; -1 for that one.

    Raises:
        ValueError: a row follows none that is before it in its run, or is not at the next position.
    """
    begin, end = (int(start) for start in batch.run_starts[run : run + 2])
    positions = batch.positions[begin:end]
    if not len(batch.tree_parents):
        if (np.diff(positions) != 1).any():
            raise ValueError("malformed batch: positions of a run are not consecutive")
        return list(range(-1, end - begin - 1))
    parents = []
    for row, parent in enumerate(batch.tree_parents[begin:end].tolist()):
        relative = row - 1 if parent == -1 else parent - begin
        if not (relative == -1 if row == 0 else 0 <= relative < row):
            raise ValueError(
                f"malformed batch: row {begin + row} follows row {parent}, which is not an earlier row of its run"
            )
        if row and positions[row] != positions[relative] + 1:
            raise ValueError(
                "malformed batch: the position of a row is not the next one to that of the row before it"
            )
        parents.append(relative)
    return parents


def is_tree(parents: list[int]) -> bool:
    """Whether any row follows another than the one before it."""
    return parents != list(range(-1, len(parents) - 1))


def path_to(parents: list[int], row: int) -> npt.NDArray[np.intp]:
    """The rows that `row` follows, directly or not, and itself, first to last."""
    path = []
    while row >= 0:
        path.append(row)
        row = parents[row]
    return np.array(path[::-1], dtype=np.intp)
