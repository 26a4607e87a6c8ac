"""What makes a batch malformed, in sentences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS, Batch, ExecutorOptions
from torchless.backends.trees import is_tree, run_parents
from torchless.plan import Plan

__all__ = ["check_batch", "check_page", "check_slots"]


def check_batch(batch: Batch, plan: Plan, options: ExecutorOptions) -> None:
    """Raises ValueError naming what is wrong with a malformed batch."""
    n, runs = len(batch.token_ids), len(batch.run_starts) - 1
    num_outputs, num_parents = len(batch.output_rows), len(batch.tree_parents)
    problems = {
        f"{n} tokens; a step takes 1 to {options.max_batch_tokens}": not 1 <= n <= options.max_batch_tokens,
        f"{num_outputs} outputs; a step takes up to {options.max_outputs}": num_outputs > options.max_outputs,
        "array lengths do not fit together": len(batch.positions) != n or len(batch.page_starts) != runs + 1,
        f"{num_parents} tree_parents of {n} tokens": num_parents not in (0, n),
        f"a token id is outside the vocabulary of {plan.num_token_ids}": not _are_below(
            batch.token_ids, plan.num_token_ids * plan.num_types
        ),
        "page id out of range": not _are_below(batch.page_ids, options.num_pages),
    }
    for problem, found in problems.items():
        if found:
            raise ValueError(f"malformed batch: {problem}")
    for starts, length, name in (
        (batch.run_starts, n, "run"),
        (batch.page_starts, len(batch.page_ids), "page"),
    ):
        if starts[0] != 0 or starts[-1] != length or (np.diff(starts) <= 0).any():
            raise ValueError(f"malformed batch: {name}_starts do not span their array")
    for run in range(runs):
        _check_run(batch, run, plan)
    rows = batch.output_rows
    if len(rows) and (rows[0] < 0 or rows[-1] >= n or (np.diff(rows) <= 0).any()):
        raise ValueError("malformed batch: bad output row")


def _check_run(batch: Batch, run: int, plan: Plan) -> None:
    positions = batch.positions[batch.run_starts[run] : batch.run_starts[run + 1]]
    if positions[0] < 0:
        raise ValueError("malformed batch: negative position")
    if is_tree(run_parents(batch, run)) and (plan.state_ops or plan.needs_whole_sequences):
        raise ValueError("malformed batch: a recurrent state, or a whole sequence, is no tree of tokens")
    if plan.needs_whole_sequences and positions[0] != 0:
        raise ValueError("malformed batch: a run of whole sequences begins at position 0")
    if positions.max() >= (plan.num_positions or 2**31):
        raise ValueError(f"malformed batch: position {positions.max()} has no embedding")
    last_slot = int(positions[0]) + len(positions) - 1
    if last_slot >= (batch.page_starts[run + 1] - batch.page_starts[run]) * PAGE_TOKENS:
        raise ValueError("malformed batch: a run's pages do not cover its last position")


def check_slots(
    page_ids: npt.NDArray[np.int32],
    from_slots: npt.NDArray[np.int32],
    to_slots: npt.NDArray[np.int32],
    num_pages: int,
) -> None:
    """Raises ValueError for a page or a slot that does not exist."""
    if not _are_below(page_ids, num_pages):
        raise ValueError("page id out of range")
    for slots in (from_slots, to_slots):
        if not _are_below(slots, len(page_ids) * PAGE_TOKENS):
            raise ValueError(f"a slot outside the {len(page_ids)} pages of a sequence")


def check_page(page: int, num_pages: int, num_bytes: int = 0, page_bytes: int = 0) -> None:
    """Raises ValueError for a page that does not exist, or a content that is not of a page's size."""
    if not 0 <= page < num_pages:
        raise ValueError(f"page {page} is out of range: there are {num_pages}")
    if num_bytes != page_bytes:
        raise ValueError(f"{num_bytes} bytes for a page of {page_bytes}")


def _are_below(numbers: npt.NDArray[np.int32], end: int) -> bool:
    return bool(((numbers >= 0) & (numbers < end)).all())
