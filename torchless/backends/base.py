"""The contract of a backend: compile a plan into an executor, then run ragged batches through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from torchless.activation_types import ActivationType
from torchless.lazy_weights import LazyWeights
from torchless.plan import Plan
from torchless.weights.source import WeightSource

__all__ = [
    "PAGE_TOKENS",
    "Backend",
    "Batch",
    "Best",
    "Executor",
    "ExecutorOptions",
    "KvType",
    "Progress",
    "StepInterruptedError",
    "check_state_slots",
]

PAGE_TOKENS = 32
"""Tokens whose keys and values one page holds, for all layers. A multiple of the 16 keys that fill a
vector register; small enough that prefixes are shared finely."""

KvType: TypeAlias = str
"""Number formats of keys and values, as `torchless.kv_types.split_kv_type` reads them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work: runs of consecutive tokens, one run per sequence (prefill, decode or both).

    Attributes:
        token_ids: int32 (n,), all runs one after another.
        positions: int32 (n,), position of each token in its sequence; consecutive within a run that is no tree.
        run_starts: int32 (r + 1,), run i is token rows ``run_starts[i] : run_starts[i + 1]``.
        page_ids: int32, the runs' page tables one after another: page j of a run holds its positions
            ``j * PAGE_TOKENS .. (j + 1) * PAGE_TOKENS - 1`` and must cover the run's last position.
        page_starts: int32 (r + 1,), run i owns ``page_ids[page_starts[i] : page_starts[i + 1]]``.
        output_rows: int32 (m,), ascending token rows whose logits are wanted.
        state_slots: int32 (r,), the slot of each run's recurrent state, no two alike; anything goes for a plan without
            state. A run at position 0 starts from an empty state; any other goes on at the position at which the
            last run in its slot ended, since a state cannot go back.
        first_fast_row: token rows from here on are multiplied in fast arithmetic, all others exactly; None: no row is.
            The logits of any row are made by an exact product. Only for an executor with `ExecutorOptions.fast`.
        tree_parents: empty, or int32 (n,), the token row that each follows: an earlier one of its run; -1 is the row
            before it. A run in which any follows another than that is a *tree* of drafted tokens below its first row:
            a token's position is one more than that of the row it follows, and it sees what was computed before the
            step and the rows that it follows, directly or not. Its logits are, bit for bit, those of a plain run of
            these tokens. Keys and values of row i of a run lie at *slot* ``positions[first row] + i`` of its pages
            (slots of a plain run are positions), which must cover all of them; `Executor.copy_slots` then puts those
            of the path that was kept in their places. Not for plans with recurrent state or whole sequences.
    """

    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    run_starts: npt.NDArray[np.int32]
    page_ids: npt.NDArray[np.int32]
    page_starts: npt.NDArray[np.int32]
    output_rows: npt.NDArray[np.int32]
    state_slots: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    first_fast_row: int | None = None
    tree_parents: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


def check_state_slots(batch: Batch, positions: Sequence[int]) -> None:
    """Checks the slots of a batch whose other parts are sound.

    Args:
        positions: of each slot, where its sequence goes on; -1 where a step broke off.

    Raises:
        ValueError: a slot that does not exist or appears twice, or a run that does not go on where its state ended.
    """
    if not positions:
        return
    slots = batch.state_slots.tolist()
    if len(slots) != len(batch.run_starts) - 1:
        raise ValueError("malformed batch: each run needs a state slot")
    for run, slot in enumerate(slots):
        if not 0 <= slot < len(positions) or slot in slots[:run]:
            raise ValueError(f"malformed batch: state slot {slot} is out of range or appears twice")
        first = int(batch.positions[batch.run_starts[run]])
        if first not in (0, positions[slot]):
            raise ValueError(
                f"malformed batch: a run begins at position {first}, but the state in slot {slot} goes on at "
                f"{positions[slot]}"
            )


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """Decided once, at load.

    Attributes:
        num_pages: pages of the KV cache that may be in use at once.
        max_batch_tokens: most token rows in one step.
        max_outputs: most output rows in one step.
        num_threads: worker threads.
        cpus: the processor that each thread keeps to, or none (`placement.thread_cpus`).
        kv_type: number format of cached keys and values.
        num_state_slots: sequences whose recurrent state is held at once; without effect on a plan without state.
        num_kept_states: further states that are kept for later sequences with the same beginning.
        activations: the least exact number format in which products take activations (`torchless.activation_types`).
        fast: batches may have rows in fast arithmetic (`Batch.first_fast_row`); needs int8 activations.
        lazy: which matrices may stay in the file (`torchless.lazy_weights`).
        packed_bytes: of those, as many are packed all the same as fit into so many bytes; None = all.
    """

    num_pages: int
    max_batch_tokens: int
    max_outputs: int
    num_threads: int
    kv_type: KvType = "f16"
    cpus: tuple[int, ...] = ()
    num_state_slots: int = 8
    activations: ActivationType = "int8"
    fast: bool = False
    lazy: LazyWeights = "off"
    packed_bytes: int | None = 0
    num_kept_states: int = 0

    @property
    def num_states(self) -> int:
        """Most recurrent states that there are at once."""
        return self.num_state_slots + self.num_kept_states


class Best(NamedTuple):
    """The largest logits of each output row: larger first, of equal ones the lower id first, NaN before all.

    Attributes:
        ids: int32 (m, count), token ids.
        logits: float32 (m, count), their logits.
    """

    ids: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]


class Progress(Protocol):
    """Called while weights are loaded; may raise to cancel the load."""

    def __call__(self, done_bytes: int, total_bytes: int) -> None: ...


class StepInterruptedError(Exception):
    """A step was given up because `Executor.set_interrupted` asked for it. Never reaches a user."""


class Executor(Protocol):
    """A compiled plan with its weights and its KV cache. Not thread-safe: one step at a time."""

    options: ExecutorOptions
    vocab_size: int
    """Token ids are below it."""
    output_width: int
    """Width of what a step returns: `vocab_size` for logits, another for hidden states and a classifier's scores."""
    needs_whole_sequences: bool
    """Whether every run must hold all tokens of its sequence (`plan.Attention.causal`)."""
    num_state_slots: int
    """Sequences that can be under way at once, each in a state slot; 0 for a plan without recurrent state, which sets
    no such limit."""

    def step(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Runs one step and returns the plan's output (len(output_rows), output_width).

        The array is owned by the executor and is overwritten by the next step.

        Raises:
            ValueError: the batch is not well formed (sizes, page ids, positions are checked).
        """
        ...

    def max_best(self, num_outputs: int) -> int:
        """Most candidates per row that `step_best` finds for that many output rows; 0 where it finds none."""
        ...

    def step_best(self, batch: Batch, count: int) -> Best:
        """Runs one step that leaves only the `count` largest logits of each row; `count` is 1 to `max_best`.

        They are those that `step` would give. The arrays are overwritten by the next step.

        Raises:
            ValueError: as `step`, and for a count out of range.
        """
        ...

    def step_chain(self, batch: Batch, count: int, num_steps: int) -> Best:
        """Runs a batch and then `num_steps` - 1 more steps, each with the best token behind the last one of every run.

        Args:
            batch: its output rows are the last of each run; pages cover all further tokens, too.

        Returns:
            The `count` largest logits of each step and run: arrays (num_steps, runs, count) of the caller's own.

        Raises:
            ValueError: as `step_best`, and for a plan with recurrent state.
        """
        ...

    def set_interrupted(self, is_interrupted: bool) -> None:
        """While set, a step ends soon with `StepInterruptedError`. Any thread may call it, also during a step."""
        ...

    def release_pages(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory behind these pages back to the operating system."""
        ...

    @property
    def page_bytes(self) -> int:
        """Size of what `read_page` returns."""
        ...

    def read_page(self, page: int) -> npt.NDArray[np.uint8]:
        """A copy of all keys and values that a page holds, as bytes in the executor's own layout.

        Raises:
            ValueError: no such page.
        """
        ...

    def write_page(self, page: int, content: npt.NDArray[np.uint8]) -> None:
        """Puts back what `read_page` returned, of this executor or of one of the same plan, backend and options.

        Raises:
            ValueError: no such page, or another size.
        """
        ...

    def read_state(self, slot: int) -> npt.NDArray[np.uint8]:
        """A copy of all recurrent states in a slot, as bytes in the executor's own layout.

        Raises:
            ValueError: no such slot.
        """
        ...

    def write_state(self, slot: int, content: npt.NDArray[np.uint8], position: int) -> None:
        """Puts back what `read_state` returned; the slot's next run begins at `position`, or at 0.

        Raises:
            ValueError: no such slot, or another size.
        """
        ...

    def copy_slots(
        self,
        page_ids: npt.NDArray[np.int32],
        from_slots: npt.NDArray[np.int32],
        to_slots: npt.NDArray[np.int32],
    ) -> None:
        """Copies keys and values within the pages of a sequence, exactly, one slot after another.

        Raises:
            ValueError: a page or a slot that does not exist.
        """
        ...

    def memory_bytes(self) -> dict[str, int]:
        """Bytes by purpose: ``weights``, ``scratch``, ``kv_used``, ``kv_page`` (bytes of one page),
        ``state`` (of the slots that were used)."""
        ...

    def close(self) -> None:
        """Frees weights, pages and threads. Idempotent."""
        ...


class Backend(Protocol):
    """What a folder under `backends/` offers as its module-level functions."""

    def compile(
        self, plan: Plan, source: WeightSource, options: ExecutorOptions, progress: Progress | None = None
    ) -> Executor:
        """Loads and packs the weights and prepares the plan.

        Raises:
            UnsupportedError: an op or a tensor type that this backend lacks, by name.
        """
        ...

    def required_bytes(self, plan: Plan, source: WeightSource, options: ExecutorOptions) -> dict[str, int]:
        """Memory that `compile` would take at most, before anything is allocated:
        ``weights``, ``scratch``, ``kv`` (all pages in use) and, where the plan has recurrent state, ``state`` (all
        slots in use); where weights stay in the file, ``file`` (what is mapped of it at once)."""
        ...
