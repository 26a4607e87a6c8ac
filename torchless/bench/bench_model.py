"""A loaded model under the bench: sequences of random tokens, fed to the executor step by step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.backends.base import PAGE_TOKENS, Batch
from torchless.bench.cases import Case
from torchless.bench.work import Work, count_work, dot_kinds
from torchless.errors import InvalidRequestError
from torchless.loading import LoadedModel, load_model, load_settings

__all__ = ["BenchModel", "Run"]

Ids = npt.NDArray[np.int32]


@dataclass(slots=True)
class Run:
    """One sequence of a case.

    Attributes:
        token_ids: all of them, those of the depth included.
        pages: its page table.
        own_pages: the pages that it alone uses; they come after the whole pages of its depth.
        position: tokens computed so far.
        slot: of its recurrent state.
    """

    token_ids: Ids
    pages: Ids
    own_pages: Ids
    position: int
    slot: int = 0


@dataclass(slots=True)
class _Context:
    """The depth of a sequence, kept from case to case: it only grows, by whole pages."""

    token_ids: Ids
    pages: list[int] = field(default_factory=list)


class BenchModel:
    """A model with enough cache for the given cases. Use as a context manager.

    Attributes:
        loaded: the model's parts.
        executor: its executor.
        work: what its plan costs.
    """

    def __init__(
        self, model: str, load: dict[str, Any], cases: Sequence[Case], *, seed: int = 0, progress: Any = None
    ) -> None:
        """Loads the model.

        Args:
            model: path.
            load: keywords of `torchless.load`; ``ctx`` is chosen here.
            cases: all that will be run.
            seed: of the random token ids.

        Raises:
            OutOfMemoryError: weights and cache do not fit.
            InvalidRequestError: more sequences than a step returns logits for.
        """
        num_pages = _pages_needed(cases)
        longest = max(case.length for case in cases)
        settings = load_settings(model, {**load, "ctx": num_pages * PAGE_TOKENS}, {}, None)
        self.loaded: LoadedModel = _load_quietly(settings, progress)
        self.executor: Any = self.loaded.executor
        self._seed, self._longest = seed, longest
        self._free = list(range(num_pages))[::-1]
        self._contexts: dict[int, _Context] = {}
        memory, kinds = self.executor.memory_bytes(), dot_kinds(self.executor.options.activations)
        weights = memory["weights"] + (self.loaded.lazy.file_bytes if self.loaded.lazy is not None else 0)
        self.work = count_work(self.loaded.plan, self.loaded.source, kinds, weights, memory["kv_page"])
        most, limit = max(case.num_sequences for case in cases), self.executor.options.max_outputs
        if self.executor.num_state_slots:
            limit = min(limit, self.executor.num_state_slots)
        if most > limit:
            self.close()
            raise InvalidRequestError(f"-b {most} is more than the {limit} sequences that one step decodes")

    def __enter__(self) -> BenchModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model."""
        self.loaded.close()

    def open_runs(self, case: Case) -> list[Run]:
        """The sequences of a case, each computed up to its depth. Give them back with `close_runs`.

        Recurrent state, unlike pages, is nobody else's: with it each sequence computes its whole depth.
        """
        runs, has_state = [], self.executor.num_state_slots > 0
        for number in range(case.num_sequences):
            context = self._context(0 if case.is_shared else number, case.depth)
            whole = case.depth // PAGE_TOKENS
            own = np.array([self._free.pop() for _ in range(case.own_pages)], np.int32)
            pages = np.concatenate([np.array(context.pages[:whole], np.int32), own])
            ids = np.concatenate([context.token_ids[: case.depth], self._random_ids(number + 1000)])
            start = 0 if has_state else whole * PAGE_TOKENS
            runs.append(Run(ids[: case.length], pages, own, start, number))
        if case.depth % PAGE_TOKENS or has_state:
            for run in runs:
                self.feed([run], case.depth - run.position)
        return runs

    def close_runs(self, runs: Sequence[Run]) -> None:
        """Takes the pages of the runs back."""
        for run in runs:
            self._free.extend(int(page) for page in run.own_pages)

    def feed(self, runs: Sequence[Run], count: int, work: Work | None = None) -> npt.NDArray[np.float32]:
        """Computes the next `count` tokens of each run, in one step or several; returns its last logits.

        The work is added to `work`.
        """
        most = max(1, self.executor.options.max_batch_tokens // len(runs))
        logits = np.empty((0, 0), np.float32)
        for start in range(0, count, most):
            size = min(most, count - start)
            is_fast = (
                self.executor.options.fast and count > 1
            )  # as the engine does: prompts, not what is decoded
            logits = self.executor.step(_batch(runs, size, is_fast))
            if work is not None:
                done = self.work.step([(run.position, size) for run in runs], len(runs))
                work.read_bytes += done.read_bytes
                for kind, operations in done.operations.items():
                    work.add(kind, operations)
            for run in runs:
                run.position += size
        return logits

    def _context(self, number: int, depth: int) -> _Context:
        """Context `number`, computed for at least the whole pages of `depth`."""
        if number not in self._contexts:
            self._contexts[number] = _Context(self._random_ids(number))
        context = self._contexts[number]
        done, wanted = len(context.pages) * PAGE_TOKENS, depth // PAGE_TOKENS * PAGE_TOKENS
        if wanted > done:
            context.pages += [self._free.pop() for _ in range((wanted - done) // PAGE_TOKENS)]
            pages = np.array(context.pages, np.int32)
            if not self.executor.num_state_slots:
                self.feed([Run(context.token_ids, pages, pages, done)], wanted - done)
        return context

    def _random_ids(self, number: int) -> Ids:
        """Token ids that depend on nothing but the seed and the sequence's number."""
        generator = np.random.Generator(np.random.PCG64([self._seed, number]))
        return generator.integers(0, self.executor.vocab_size, self._longest, dtype=np.int32)


def hash_logits(logits: npt.NDArray[np.float32]) -> str:
    """Equal hashes mean equal bits."""
    return blake2b(np.ascontiguousarray(logits).data, digest_size=8).hexdigest()


def _batch(runs: Sequence[Run], count: int, is_fast: bool) -> Batch:
    """The next `count` tokens of each run, and the logits after the last of each."""
    used = [run.pages[: -(-(run.position + count) // PAGE_TOKENS)] for run in runs]
    starts = np.arange(0, count * len(runs) + 1, count, dtype=np.int32)
    return Batch(
        token_ids=np.concatenate([run.token_ids[run.position : run.position + count] for run in runs]),
        positions=np.concatenate(
            [np.arange(run.position, run.position + count, dtype=np.int32) for run in runs]
        ),
        run_starts=starts,
        page_ids=np.concatenate(used),
        page_starts=np.cumsum([0, *map(len, used)], dtype=np.int32),
        output_rows=starts[1:] - 1,
        state_slots=np.array([run.slot for run in runs], np.int32),
        first_fast_row=0 if is_fast else None,
    )


def _pages_needed(cases: Sequence[Case]) -> int:
    """Pages of the contexts that are kept, and of the largest case beyond them."""
    kept: dict[int, int] = {}
    for case in cases:
        for number in range(1 if case.is_shared else case.num_sequences):
            kept[number] = max(kept.get(number, 0), case.depth // PAGE_TOKENS)
    return sum(kept.values()) + max(case.own_pages * case.num_sequences for case in cases)


def _load_quietly(settings: Any, progress: Any) -> LoadedModel:
    """Loads without the warning that the context is long: it is the cache of many sequences."""
    logger = logging.getLogger("torchless")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return load_model(settings, progress)
    finally:
        logger.setLevel(before)
