"""Puts what was chosen for a step together: runs of tokens of all sequences as one ragged batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from torchless.backends.base import Batch
from torchless.engine.draft_tree import DraftTree
from torchless.engine.sequence import Sequence

__all__ = ["Run", "Schedule", "assemble"]

Ids: TypeAlias = npt.NDArray[np.int32]


class Run(NamedTuple):
    """A sequence's share of a step: its next `num_tokens` pending tokens, of which the last
    `num_outputs` rows give logits, found in the step's logits from row `first_output` on.

    With a draft it is one pending token and the drafted nodes behind it, and all of them give logits."""

    sequence: Sequence
    num_tokens: int
    first_output: int
    num_outputs: int
    draft: DraftTree | None = None


class Schedule(NamedTuple):
    """What a step computes, for the executor and for the engine. `batch` is None when nothing is left."""

    batch: Batch | None
    runs: list[Run]


def assemble(
    chosen: Mapping[Sequence, tuple[int, int]],
    drafts: Mapping[Sequence, DraftTree],
    num_fast_tokens: Callable[[Sequence], int],
) -> Schedule:
    """The chosen runs as one ragged batch.

    Args:
        chosen: rows and output rows of each sequence.
        drafts: the drafted nodes among them.
        num_fast_tokens: how many of a sequence's next tokens are computed in fast arithmetic.
    """
    if not chosen:
        return Schedule(None, [])
    if len(chosen) == 1:
        ((sequence, (num_tokens, num_outputs)),) = chosen.items()
        return _assemble_one(
            sequence, num_tokens, num_outputs, num_fast_tokens(sequence) > 0, drafts.get(sequence)
        )
    runs: list[Run] = []
    token_ids, positions, page_ids, output_rows, state_slots = [], [], [], [], []
    run_starts, page_starts = [0], [0]
    num_rows = num_output_rows = num_pages = 0
    first_fast_row = None
    trees = []
    # In fast mode exact rows come first.
    for sequence, (num_tokens, num_outputs) in sorted(
        chosen.items(), key=lambda choice: num_fast_tokens(choice[0]) > 0
    ):
        if first_fast_row is None and num_fast_tokens(sequence):
            first_fast_row = num_rows
        draft = drafts.get(sequence)
        ids, places = _rows(sequence, num_tokens, draft)
        token_ids.append(ids)
        positions.append(places)
        if draft is not None and not draft.is_chain:
            trees.append((num_rows, draft))
        page_ids.append(sequence.page_ids[: sequence.num_pages])
        state_slots.append(sequence.state_slot)
        num_rows += num_tokens
        output_rows.append(np.arange(num_rows - num_outputs, num_rows, dtype=np.int32))
        runs.append(Run(sequence, num_tokens, num_output_rows, num_outputs, draft))
        num_output_rows += num_outputs
        num_pages += sequence.num_pages
        run_starts.append(num_rows)
        page_starts.append(num_pages)
    batch = Batch(
        np.concatenate(token_ids),
        np.concatenate(positions),
        np.array(run_starts, dtype=np.int32),
        np.concatenate(page_ids),
        np.array(page_starts, dtype=np.int32),
        np.concatenate(output_rows),
        np.array(state_slots, dtype=np.int32),
        first_fast_row,
        _parents(trees, num_rows),
    )
    return Schedule(batch, runs)


def _assemble_one(
    sequence: Sequence, num_tokens: int, num_outputs: int, is_fast: bool, draft: DraftTree | None
) -> Schedule:
    """The batch of a single run: the common case, without copies."""
    trees = [] if draft is None or draft.is_chain else [(0, draft)]
    batch = Batch(
        *_rows(sequence, num_tokens, draft),
        np.array([0, num_tokens], dtype=np.int32),
        sequence.page_ids[: sequence.num_pages],
        np.array([0, sequence.num_pages], dtype=np.int32),
        np.arange(num_tokens - num_outputs, num_tokens, dtype=np.int32),
        np.array([sequence.state_slot], dtype=np.int32),
        0 if is_fast else None,
        _parents(trees, num_tokens),
    )
    return Schedule(batch, [Run(sequence, num_tokens, 0, num_outputs, draft)])


def _rows(sequence: Sequence, num_tokens: int, draft: DraftTree | None) -> tuple[Ids, Ids]:
    """Token ids and positions of a run."""
    start = sequence.num_computed_tokens
    if draft is not None:
        return draft.rows(int(sequence.tokens[start]), start)
    return sequence.tokens[start : start + num_tokens], np.arange(start, start + num_tokens, dtype=np.int32)


def _parents(trees: list[tuple[int, DraftTree]], num_rows: int) -> Ids:
    """`Batch.tree_parents` of a batch with these trees, each with its first row."""
    if not trees:
        return _NO_PARENTS
    parents = np.full(num_rows, -1, dtype=np.int32)
    for first_row, tree in trees:
        parents[first_row : first_row + len(tree.parents)] = tree.parent_rows(first_row)
    return parents


_NO_PARENTS: Ids = np.empty(0, dtype=np.int32)
