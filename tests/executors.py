"""Helpers of tests that drive an executor directly: open a model, make batches, run sequences in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless.adapters.applied import AdaptedSource, adapted_plan
from torchless.adapters.binding import bind_adapters
from torchless.adapters.open import scaled_paths
from torchless.backends.base import PAGE_TOKENS, Batch, Executor, ExecutorOptions, KvType
from torchless.lazy_weights import LazyWeights
from torchless.models import record_plan
from torchless.weights.open import open_source

Logits = npt.NDArray[np.float32]


def open_executor(
    path: Path,
    backend: str = "cpu",
    *,
    threads: int = 1,
    kv: KvType = "f16",
    activations: str = "int8",
    fast: bool = False,
    max_tokens: int = 512,
    pages: int = 256,
    lora: Any = None,
    lazy: LazyWeights = "off",
    packed_bytes: int = 0,
) -> Executor:
    """An executor of the model at `path` that returns up to `max_tokens` rows of logits."""
    source = open_source(path)
    plan, _ = record_plan(source)
    if lora is not None:
        bound = bind_adapters(plan, source, scaled_paths(lora))
        plan, source = adapted_plan(plan, bound), AdaptedSource(source, bound)
    options = ExecutorOptions(
        *(pages, max_tokens, max_tokens, threads, kv),
        activations=activations,
        fast=fast,
        lazy=lazy,
        packed_bytes=packed_bytes,
    )
    executor: Executor = import_module(f"torchless.backends.{backend}").compile(plan, source, options)
    return executor


class Run:
    """One sequence: its ids, how many are computed, the pages that it owns, and its state slot."""

    def __init__(self, ids: Sequence[int], first_page: int, slot: int = 0) -> None:
        self.slot = slot
        self.ids = list(ids)
        self.done = 0
        self.pages = np.arange(first_page, first_page + -(-len(ids) // PAGE_TOKENS), dtype=np.int32)


def make_batch(pieces: Sequence[tuple[Run, int]], first_fast_run: int | None = None) -> Batch:
    """The next `count` tokens of each run, logits of every token wanted; in fast arithmetic from a run on."""
    ids, positions, run_starts, page_ids, page_starts = [], [], [0], [], [0]
    for run, count in pieces:
        ids += run.ids[run.done : run.done + count]
        positions += range(run.done, run.done + count)
        run_starts.append(len(ids))
        page_ids += run.pages[: -(-(run.done + count) // PAGE_TOKENS)].tolist()
        page_starts.append(len(page_ids))
        run.done += count
    slots = [run.slot for run, _ in pieces]
    arrays = (ids, positions, run_starts, page_ids, page_starts, range(len(ids)), slots)
    fast = None if first_fast_run is None else run_starts[first_fast_run]
    return Batch(*(np.array(values, dtype=np.int32) for values in arrays), fast)


def logits_of(
    executor: Executor, ids: Sequence[int], chunk: int, first_page: int = 0, *, fast: bool = False
) -> Logits:
    """Logits (n, vocab) of every token of one sequence, prefilled in chunks, all of them in fast arithmetic or none."""
    run = Run(ids, first_page)
    rows = []
    while run.done < len(ids):
        batch = make_batch([(run, min(chunk, len(ids) - run.done))], 0 if fast else None)
        rows.append(executor.step(batch).copy())
    executor.release_pages(run.pages)
    return np.concatenate(rows)


def logits_of_batch(
    executor: Executor,
    sequences: Sequence[Sequence[int]],
    chunks: Sequence[int],
    num_exact: int | None = None,
) -> list[Logits]:
    """Logits of several sequences run together, each with its own chunk size, until all are through.

    Those behind the first `num_exact`, where it is given, are computed in fast arithmetic.
    """
    runs, first_page = [], 0
    for ids in sequences:
        runs.append(Run(ids, first_page, len(runs)))
        first_page += len(runs[-1].pages)
    results: list[list[Logits]] = [[] for _ in runs]
    while any(run.done < len(run.ids) for run in runs):
        pieces = [
            (i, run, min(chunk, len(run.ids) - run.done))
            for i, (run, chunk) in enumerate(zip(runs, chunks, strict=True))
        ]
        pieces = [piece for piece in pieces if piece[2] > 0]
        first_fast = None if num_exact is None else sum(i < num_exact for i, _, _ in pieces)
        first_fast = None if first_fast == len(pieces) else first_fast
        logits = executor.step(make_batch([(run, count) for _, run, count in pieces], first_fast))
        row = 0
        for i, _, count in pieces:
            results[i].append(logits[row : row + count].copy())
            row += count
    for run in runs:
        executor.release_pages(run.pages)
    return [np.concatenate(rows) for rows in results]
