"""An executor without a model: it checks every batch and gives logits that depend on all tokens before them.

Tokens are kept in pages as keys and values would be, which runs may share as long as none of them writes there. The
logits of a row are a hash of the tokens that its page table leads to, so that a wrong page, position, chunk or
neighbour changes them. With state slots the tokens are kept there besides, as recurrent state would be, and must be
the same. Tokens in fast arithmetic count as other tokens.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np

from torchless.backends.base import (
    PAGE_TOKENS,
    Batch,
    Best,
    ExecutorOptions,
    StepInterruptedError,
    check_state_slots,
)
from torchless.backends.chains import step_chain
from torchless.backends.trees import is_tree, path_to, run_parents


def expected_logits(tokens, vocab_size: int) -> np.ndarray:
    """The logits that follow `tokens`: what every way of computing them must give."""
    digest = hashlib.blake2b(np.asarray(tokens, np.int32).tobytes(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    return random.normal(size=vocab_size).astype(np.float32) * 3


class FakeExecutor:
    """Follows the contract of `backends.base.Executor`."""

    def __init__(
        self,
        *,
        vocab_size=50,
        num_pages=64,
        max_batch_tokens=32,
        max_outputs=8,
        favourites=(),
        num_state_slots=0,
        fast=False,
        num_kept_states=0,
    ):
        self.options = ExecutorOptions(
            *(num_pages, max_batch_tokens, max_outputs, 1), fast=fast, num_kept_states=num_kept_states
        )
        self.num_state_slots = num_state_slots
        self._states: list[list[int]] = [[] for _ in range(num_state_slots)]
        self._positions = [-1] * num_state_slots
        self.vocab_size = self.output_width = vocab_size
        self.needs_whole_sequences = False
        self.favourites = dict(favourites)  # length of a sequence -> token that then gets the largest logit
        self.released: list[int] = []
        self.batches: list[Batch] = []
        self.fail_at: dict[int, BaseException] = {}  # number of a step -> what it raises
        self.closed = False
        self.interrupted = threading.Event()
        self.num_interruptions = 0
        self.waits: dict[
            int, float
        ] = {}  # number of a step -> seconds that it takes unless it is interrupted
        self._tokens = np.full((num_pages, PAGE_TOKENS), -1, np.int32)
        self._logits = np.empty((max_outputs, vocab_size), np.float32)

    def step(self, batch: Batch) -> np.ndarray:
        assert not self.closed
        self.batches.append(batch)
        self._check(batch)
        check_state_slots(batch, self._positions)
        self._mark(batch, [-1] * len(batch.state_slots))
        contexts = []
        kept = batch.token_ids.copy()
        if batch.first_fast_row is not None:
            assert self.options.fast and batch.first_fast_row in batch.run_starts[:-1]
            kept[batch.first_fast_row :] += self.vocab_size
        for i in range(len(batch.run_starts) - 1):
            rows = slice(batch.run_starts[i], batch.run_starts[i + 1])
            table = batch.page_ids[batch.page_starts[i] : batch.page_starts[i + 1]]
            start = int(batch.positions[rows][0])
            slots = start + np.arange(rows.stop - rows.start)
            self._tokens[table[slots[slots % PAGE_TOKENS == 0] // PAGE_TOKENS]] = -1  # as the real one clears
            self._tokens[table[slots // PAGE_TOKENS], slots % PAGE_TOKENS] = kept[rows]
            stored = self._tokens[table].reshape(-1)
            parents = run_parents(batch, i)
            assert not (is_tree(parents) and self.num_state_slots)
            paths = [path_to(parents, row) for row in range(len(slots))]
            contexts += [np.concatenate([stored[:start], stored[start + path]]) for path in paths]
            self._move_state(batch, i, kept[rows], contexts[-1])
        if self.interrupted.wait(self.waits.pop(len(self.batches), 0)):
            self.num_interruptions += 1
            raise StepInterruptedError
        error = self.fail_at.pop(len(self.batches), None)
        if error is not None:
            raise error
        self._mark(batch, batch.positions[batch.run_starts[1:] - 1] + 1)
        self._logits[:] = np.nan  # the last step's rows are gone
        for i, row in enumerate(batch.output_rows):
            context = contexts[row]
            assert (context >= 0).all(), "read a position that was never written"
            self._logits[i] = expected_logits(context, self.vocab_size)
            if len(context) in self.favourites:
                self._logits[i, self.favourites[len(context)]] = 100
        return self._logits[: len(batch.output_rows)]

    def max_best(self, num_outputs: int) -> int:
        return 12

    def step_best(self, batch: Batch, count: int) -> Best:
        assert 1 <= count <= 12
        logits = self.step(batch)
        order = (-logits).argsort(axis=1, kind="stable")[:, :count]
        return Best(order.astype(np.int32), np.take_along_axis(logits, order, axis=1))

    def step_chain(self, batch: Batch, count: int, num_steps: int) -> Best:
        return step_chain(self, batch, count, num_steps)

    def _check(self, batch: Batch) -> None:
        arrays = [getattr(batch, name) for name in Batch.__slots__ if name != "first_fast_row"]
        assert all(a.dtype == np.int32 and a.ndim == 1 and a.flags.c_contiguous for a in arrays)
        num_rows, num_runs = len(batch.token_ids), len(batch.run_starts) - 1
        assert num_runs >= 1 and len(batch.page_starts) == num_runs + 1 and len(batch.positions) == num_rows
        assert 1 <= num_rows <= self.options.max_batch_tokens
        assert len(batch.output_rows) <= self.options.max_outputs
        assert batch.run_starts[0] == 0 and batch.run_starts[-1] == num_rows
        assert batch.page_starts[0] == 0 and batch.page_starts[-1] == len(batch.page_ids)
        assert (np.diff(batch.run_starts) >= 1).all() and (np.diff(batch.output_rows) >= 1).all()
        assert ((batch.token_ids >= 0) & (batch.token_ids < self.vocab_size)).all()
        assert ((batch.page_ids >= 0) & (batch.page_ids < self.options.num_pages)).all()
        tables = [batch.page_ids[slice(*batch.page_starts[i : i + 2])].tolist() for i in range(num_runs)]
        assert all(len(set(table)) == len(table) for table in tables), "a run has a page twice"
        for i in range(num_runs):
            written = set(tables[i][batch.positions[batch.run_starts[i]] // PAGE_TOKENS :])
            others = [page for table in tables[:i] + tables[i + 1 :] for page in table]
            assert not written & {*others}, "a run writes to a page of another"
            begin, end = batch.run_starts[i : i + 2]
            run_parents(batch, i)
            last_slot = batch.positions[begin] + (end - begin) - 1
            assert (batch.page_starts[i + 1] - batch.page_starts[i]) * PAGE_TOKENS > last_slot

    def _move_state(self, batch: Batch, run: int, tokens: np.ndarray, context: np.ndarray) -> None:
        """Adds a run's tokens to its state; they are those of the pages, or the state was another sequence's."""
        if self.num_state_slots:
            state = self._states[batch.state_slots[run]]
            if batch.positions[batch.run_starts[run]] == 0:
                state.clear()
            state += tokens.tolist()
            assert state == context.tolist()

    def _mark(self, batch: Batch, positions) -> None:
        if self.num_state_slots:
            for slot, position in zip(batch.state_slots, positions, strict=True):
                self._positions[slot] = int(position)

    def set_interrupted(self, is_interrupted: bool) -> None:
        (self.interrupted.set if is_interrupted else self.interrupted.clear)()

    def release_pages(self, page_ids: np.ndarray) -> None:
        self.released += page_ids.tolist()
        self._tokens[page_ids] = -1

    @property
    def page_bytes(self) -> int:
        return PAGE_TOKENS * 4

    def read_page(self, page: int) -> np.ndarray:
        assert (self._tokens[page] >= 0).all(), "a page that is not full is of no use to anybody"
        return self._tokens[page].copy().view(np.uint8)

    def write_page(self, page: int, content: np.ndarray) -> None:
        self._tokens[page] = np.ascontiguousarray(content).view(np.int32)

    def read_state(self, slot: int) -> np.ndarray:
        assert self._positions[slot] == len(self._states[slot])
        return np.array(self._states[slot], np.int32).view(np.uint8)

    def write_state(self, slot: int, content: np.ndarray, position: int) -> None:
        self._states[slot] = content.view(np.int32).tolist()
        assert len(self._states[slot]) == position
        self._positions[slot] = position

    def copy_slots(self, page_ids: np.ndarray, from_slots: np.ndarray, to_slots: np.ndarray) -> None:
        assert all(a.dtype == np.int32 for a in (page_ids, from_slots, to_slots))
        for source, target in zip(from_slots, to_slots, strict=True):
            token = self._tokens[page_ids[source // PAGE_TOKENS], source % PAGE_TOKENS]
            self._tokens[page_ids[target // PAGE_TOKENS], target % PAGE_TOKENS] = token

    def memory_bytes(self) -> dict[str, int]:
        return {"weights": 1, "scratch": 1, "kv_used": 0, "kv_page": 1}

    def close(self) -> None:
        self.closed = True
