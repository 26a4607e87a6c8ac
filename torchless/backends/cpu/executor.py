"""Compiles a plan for the C++ core: checks, packs weights, lays out memory, and runs steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.backends.base import Batch, Best, ExecutorOptions, Progress, StepInterruptedError
from torchless.backends.chains import step_chain
from torchless.backends.cpu.contents import Contents
from torchless.backends.cpu.core_stages import add_stages
from torchless.backends.cpu.layout import Layout
from torchless.backends.cpu.lower_attention import ONES
from torchless.backends.cpu.packing import expert_jobs, first_rows, share_of_steps
from torchless.backends.cpu.residency import MappedMatrix, locate
from torchless.backends.cpu.stages import Stage
from torchless.plan import Plan
from torchless.quants import Bytes
from torchless.weights.mapped_file import MappedFile, is_mapped
from torchless.weights.pieces import pieces_of
from torchless.weights.source import WeightSource

__all__ = ["CpuExecutor", "compile", "required_bytes"]

_SLICE_BYTES = 4 << 20
_KEPT_TABLE_BYTES = 8 << 20
"""Of a larger embedding table in a file, the core lets the pages around each row go: a system may map 2 MB for one."""


def compile(
    plan: Plan, source: WeightSource, options: ExecutorOptions, progress: Progress | None = None
) -> CpuExecutor:
    """See `backends.base.Backend.compile`."""
    return CpuExecutor(Layout(plan, source, options), progress)


def required_bytes(plan: Plan, source: WeightSource, options: ExecutorOptions) -> dict[str, int]:
    """See `backends.base.Backend.required_bytes`."""
    layout = Layout(plan, source, options)
    return {
        "weights": layout.weight_bytes,
        "scratch": layout.scratch_bytes,
        "kv": layout.page_bytes * options.num_pages,
        **({"state": layout.slot_bytes * options.num_states} if layout.state_sizes else {}),
        **({"file": layout.file_bytes} if layout.mapped else {}),
    }


class CpuExecutor(Contents):
    """An `Executor` over the C++ core. See `backends.base.Executor`."""

    def __init__(self, layout: Layout, progress: Progress | None) -> None:
        options = layout.options
        self.options = options
        assert layout.plan.output is not None
        self.vocab_size = layout.plan.num_token_ids
        self.output_width = layout.plan.output.width
        self.needs_whole_sequences = layout.plan.needs_whole_sequences
        self.lowered = layout.lowered
        self._pages_used = np.zeros(options.num_pages, dtype=bool)
        self._core: Any = layout.core.Executor(
            options.num_threads,
            options.max_batch_tokens,
            options.max_outputs,
            layout.weight_bytes,
            options.activations,
            options.fast,
            list(options.cpus),
        )
        if layout.kv_layers:
            self._core.set_kv_cache(*layout.kv_types, layout.kv_layers, options.num_pages)
        self.num_state_slots = options.num_state_slots if layout.state_sizes else 0
        self._slots_used = np.zeros(self.num_state_slots, dtype=bool)
        if self.num_state_slots:
            self._core.set_states(self.num_state_slots, layout.state_sizes)
        self.mapped: list[MappedMatrix] = []
        self._maps: dict[MappedFile, Bytes] = {}
        self._file_bytes = layout.file_bytes
        handles = self._name_weights(layout)
        add_stages(self._core, layout, handles)
        self._core.finish(
            layout.arena_bytes, layout.lowered.output, self.output_width, layout.lowered.is_fused
        )
        if options.fast:
            layout.warn_of_useless_fast_mode()
        if options.cpus:
            self._core.place_weights()
        self._pack_weights(layout, handles, progress)
        self._logits: npt.NDArray[np.float32] = self._core.logits
        self._best = Best(self._core.best_ids, self._core.best_logits) if self.max_best(1) else None

    def step(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Runs one step; returns logits (m, vocab), overwritten by the next step."""
        self._step(batch, 0)
        return self._logits[: len(batch.output_rows)]

    def max_best(self, num_outputs: int) -> int:
        """See `backends.base.Executor`."""
        return 0 if self._core is None else min(int(self._core.max_best(num_outputs)), self.output_width)

    def step_best(self, batch: Batch, count: int) -> Best:
        """Runs one step; returns the `count` largest logits of each row, overwritten by the next step."""
        if self._best is None or count < 1:
            raise ValueError(f"the best {count} logits of a plan that keeps {self.max_best(1)}")
        self._step(batch, count)
        num_rows = len(batch.output_rows)
        return Best(self._best.ids[:num_rows, :count], self._best.logits[:num_rows, :count])

    def step_chain(self, batch: Batch, count: int, num_steps: int) -> Best:
        """See `backends.base.Executor`."""
        num_runs = len(batch.run_starts) - 1
        if self._core is None or self.num_state_slots or not 1 <= count <= self.max_best(num_runs):
            return step_chain(self, batch, count, num_steps)
        for file in self._maps:
            file.check_size()
        shape = num_steps, num_runs, count
        found = Best(np.empty(shape, np.int32), np.empty(shape, np.float32))
        self._core.step_chain(
            batch.token_ids,
            batch.positions,
            batch.run_starts,
            batch.page_ids,
            batch.page_starts,
            batch.output_rows,
            *found,
        )
        self._pages_used[batch.page_ids] = True
        return found

    def _step(self, batch: Batch, num_best: int) -> None:
        if self._core is None:
            raise ValueError("this executor is closed")
        for file in self._maps:
            file.check_size()
        completed = self._core.step(
            batch.token_ids,
            batch.positions,
            batch.run_starts,
            batch.page_ids,
            batch.page_starts,
            batch.output_rows,
            batch.state_slots,
            len(batch.token_ids) if batch.first_fast_row is None else batch.first_fast_row,
            batch.tree_parents,
            num_best,
        )
        if self.num_state_slots:
            self._slots_used[batch.state_slots] = True
        self._pages_used[batch.page_ids] = True
        if not completed:
            raise StepInterruptedError

    def set_interrupted(self, is_interrupted: bool) -> None:
        """See `backends.base.Executor`."""
        if (core := self._core) is not None:
            core.set_interrupted(is_interrupted)

    def release_pages(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory of these pages back to the system."""
        if self._core is not None:
            self._core.release_pages(page_ids)
            self._pages_used[page_ids] = False

    def copy_slots(
        self,
        page_ids: npt.NDArray[np.int32],
        from_slots: npt.NDArray[np.int32],
        to_slots: npt.NDArray[np.int32],
    ) -> None:
        """See `backends.base.Executor`."""
        if self._core is not None:
            self._core.copy_slots(page_ids, from_slots, to_slots)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes by purpose. Any thread may ask, also while another closes the executor."""
        if (core := self._core) is None:
            return {"weights": 0, "scratch": 0, "kv_used": 0, "kv_page": 0, "state": 0}
        return {
            "weights": core.weight_bytes,
            "scratch": core.scratch_bytes,
            "kv_used": int(self._pages_used.sum()) * core.page_bytes,
            "kv_page": core.page_bytes,
            "state": int(self._slots_used.sum()) * core.slot_bytes,
            **({"file": self._file_bytes} if self.mapped else {}),
        }

    def read_mapped(self, matrix: MappedMatrix, begin: int, end: int) -> None:
        """Reads and multiplies tiles ``begin .. end`` of a matrix as a step would, to measure what that takes."""
        self._core.try_tiles(matrix.handle, begin, end)

    def time_stages(self, on: bool) -> None:
        """Measures, while on, how long every stage takes; turning it on starts from zero."""
        self._core.time_stages(on)

    def stage_times(self) -> list[tuple[Stage | None, float]]:
        """Each stage with its seconds so far, in order; None stands for the preparation before the first.

        Empty while stages are not timed.
        """
        seconds = [nanoseconds / 1e9 for nanoseconds in self._core.stage_ns()]
        stages = self.lowered.stages if seconds else []
        first = len(seconds) - len(stages)
        preparation: list[tuple[Stage | None, float]] = [(None, sum(seconds[:first]))] if seconds else []
        return [*preparation, *zip(stages, seconds[first:], strict=True)]

    def close(self) -> None:
        """Frees everything once no view of the logits is left."""
        self._core = None
        self._best = None
        self.mapped, self._maps = [], {}
        self._logits = np.empty((0, self.output_width), np.float32)

    # -- building ---------------------------------------------------------------------------------

    def _name_weights(self, layout: Layout) -> dict[str, dict[Any, int]]:
        """Loads vectors and tables and makes room for matrices; returns handles by kind and name.

        ``"stack"`` has the handle of each stack's first matrix, ``"biases"`` the vector of all its biases.
        """
        source, core = layout.source, self._core
        handles: dict[str, dict[Any, int]] = {
            kind: {} for kind in ("matrix", "table", "vector", "stack", "biases")
        }

        def decoded(name: str) -> npt.NDArray[np.float32]:
            if name.startswith(ONES):
                return np.ones(int(name.removeprefix(ONES)), np.float32)
            info = layout.tensor(name)
            values = quants.by_name(info.type).decode(source.raw(info.name)).astype(np.float32, copy=False)
            _, first, end = layout.parts.get(name, (name, 0, None))
            return values.reshape(info.shape)[first:end]

        for name in layout.vectors:
            values = decoded(name).T if name in layout.transposed else decoded(name)
            handles["vector"][name] = core.add_vector(np.ascontiguousarray(values).reshape(-1))
        for name in layout.tables:
            raw = source.raw(name)
            is_forgotten = raw.size > _KEPT_TABLE_BYTES and is_mapped(raw)
            handles["table"][name] = core.add_table(*layout.matrix(name), raw, is_forgotten)
        for name in layout.matrices:
            first_row = layout.parts.get(name, (name, 0))[1]
            shape = layout.matrix(name)
            handles["matrix"][name] = (
                self._map_matrix(layout, layout.tensor_name(name), shape, first_row, 1.0)
                if name in layout.mapped
                else core.add_matrix(*shape)
            )
        for stack in layout.stacks:
            shape = layout.expert(stack)
            if stack in layout.mapped:
                share = share_of_steps(layout.plan, stack.weight)
                new = [
                    self._map_matrix(layout, stack.weight, shape, first_row, share)
                    for first_row in first_rows(layout, stack)
                ]
            else:
                new = [core.add_matrix(*shape) for _ in range(layout.num_experts(stack))]
            handles["stack"][stack] = new[0]
            if stack.bias is not None:
                biases = decoded(stack.bias).reshape(len(new), stack.num_parts, -1)[:, stack.part]
                handles["biases"][stack] = core.add_vector(np.ascontiguousarray(biases).reshape(-1))
        return handles

    def _map_matrix(
        self, layout: Layout, tensor: str, shape: tuple[int, int, int], first_row: int, share: float
    ) -> int:
        """Hands a matrix to the core where it lies in its file; returns its handle."""
        type_id, num_rows, num_columns = shape
        row_bytes = quants.by_id(type_id).num_bytes(num_columns)
        piece = locate(pieces_of(layout.source, tensor), first_row * row_bytes, num_rows * row_bytes)
        view = self._maps.setdefault(piece.file, piece.file.whole())
        handle: int = self._core.add_mapped_matrix(*shape, view, piece.offset)
        self.mapped.append(MappedMatrix(handle, piece, -(-num_rows // 16), share))
        return handle

    def _pack_weights(
        self, layout: Layout, handles: dict[str, dict[Any, int]], progress: Progress | None
    ) -> None:
        source, core = layout.source, self._core
        jobs = []
        for name, handle in handles["matrix"].items():
            if name in layout.mapped:
                continue
            tensor, first, _ = layout.parts.get(name, (name, 0, 0))
            jobs.append((tensor, handle, first, layout.matrix(name)[1]))
        jobs += expert_jobs(layout, handles["stack"])
        total = sum(source.tensors[name].num_bytes for name in dict.fromkeys(job[0] for job in jobs))
        done = 0
        for name, handle, first_row, rows in jobs:
            raw, info = source.raw(name), source.tensors[name]
            row_bytes = info.num_bytes // math.prod(info.shape[:-1])
            # In slices: the file's pages go as soon as they are packed, so both copies never add up, and Ctrl-C is
            # heard in between.
            slice_rows = max(_SLICE_BYTES // row_bytes // 16, 1) * 16
            for first in range(0, rows, slice_rows):
                if progress is not None:
                    progress(done, total)
                count = min(slice_rows, rows - first)
                start, num_bytes = (first_row + first) * row_bytes, count * row_bytes
                core.pack_rows(handle, first, count, raw[start : start + num_bytes])
                source.drop_pages(name, start, num_bytes)
                done += num_bytes
        if progress is not None:
            progress(total, total)
