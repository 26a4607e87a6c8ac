"""Greedy chains of steps for executors that take them one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchless.backends.base import Batch, Best

if TYPE_CHECKING:
    from torchless.backends.base import Executor

__all__ = ["step_chain"]


def step_chain(executor: Executor, batch: Batch, count: int, num_steps: int) -> Best:
    """See `backends.base.Executor.step_chain`."""
    num_runs = len(batch.run_starts) - 1
    if executor.num_state_slots:
        raise ValueError("a plan with recurrent state takes no chain of steps")
    if not np.array_equal(batch.output_rows, batch.run_starts[1:] - 1):
        raise ValueError("malformed batch: a chain needs the best of the last row of each run")
    found = []
    positions = batch.positions[batch.run_starts[1:] - 1]
    rows = np.arange(num_runs + 1, dtype=np.int32)
    for step in range(num_steps):
        best = executor.step_best(batch, count)
        found.append(Best(best.ids.copy(), best.logits.copy()))
        next_positions = (positions + 1 + step).astype(np.int32)
        ids = np.ascontiguousarray(best.ids[:, 0])
        batch = Batch(ids, next_positions, rows, batch.page_ids, batch.page_starts, rows[:-1])
    return Best(np.stack([best.ids for best in found]), np.stack([best.logits for best in found]))
