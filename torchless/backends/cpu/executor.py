"""Compiles a plan for the C++ core: checks, packs weights, lays out memory, and runs steps."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.backends.base import Batch, Best, ExecutorOptions, Progress
from torchless.backends.cpu.arena import Lifetime, plan_arena
from torchless.backends.cpu.extension import load_extension
from torchless.backends.cpu.lower import lower
from torchless.backends.cpu.lower_experts import Stack, gate_stacks, stacks
from torchless.backends.cpu.stages import Buffer, LoweredPlan, Stage
from torchless.errors import UnsupportedError
from torchless.kv_types import split_kv_type
from torchless.plan import Attention, Embed, Experts, HeadsLinear, Linear, Plan, RmsNorm
from torchless.weights.source import WeightSource

__all__ = ["CpuExecutor", "compile", "required_bytes"]

_VECTOR_TYPES = ("F32", "F16", "BF16")
_SLICE_BYTES = 4 << 20
_TABLE_ROWS = 64
"""Rows read from an embedding table before its file pages are let go: the system maps 64 kB around each."""


def compile(
    plan: Plan, source: WeightSource, options: ExecutorOptions, progress: Progress | None = None
) -> CpuExecutor:
    """See `backends.base.Backend.compile`."""
    return CpuExecutor(_Layout(plan, source, options), progress)


def required_bytes(plan: Plan, source: WeightSource, options: ExecutorOptions) -> dict[str, int]:
    """See `backends.base.Backend.required_bytes`."""
    layout = _Layout(plan, source, options)
    return {
        "weights": layout.weight_bytes,
        "scratch": layout.scratch_bytes,
        "kv": layout.page_bytes * options.num_pages,
    }


class _Layout:
    """Everything about a compiled plan that is known before memory is taken."""

    def __init__(self, plan: Plan, source: WeightSource, options: ExecutorOptions) -> None:
        _core = load_extension()
        self.core = _core
        self.plan = plan
        self.source = source
        self.options = options
        self.activation_formats = _check_formats(_core.formats())
        self.matrices = tuple(dict.fromkeys(op.weight for op in plan.ops if isinstance(op, Linear)))
        self.tables = tuple(dict.fromkeys(op.weight for op in plan.ops if isinstance(op, Embed)))
        self.vectors = tuple(
            dict.fromkeys(
                [op.weight for op in plan.ops if isinstance(op, RmsNorm)]
                + [op.bias for op in plan.ops if isinstance(op, Linear) and op.bias is not None]
                + [op.sinks for op in plan.attention_ops if op.sinks is not None]
                + [op.selection_bias for op in plan.ops if isinstance(op, Experts) and op.selection_bias]
            )
        )
        head_names = dict.fromkeys(op.head_weights for op in plan.ops if isinstance(op, HeadsLinear))
        self.head_stacks = tuple(Stack(name, None) for name in head_names)
        self.stacks = (*stacks(plan), *self.head_stacks)
        self._check_types()
        self.attention = _common_attention(plan)
        self.kv_types = split_kv_type(options.kv_type)
        self.lowered: LoweredPlan = lower(plan, self._activation_format, fuse=fuses())
        self.offsets, self.arena_bytes = plan_arena(
            [
                Lifetime(self._num_rows(b) * self._row_bytes(b.format, b.width), b.first, b.last)
                for b in self.lowered.buffers
            ]
        )
        self.weight_bytes = sum(_core.packed_bytes(*self._matrix(name)) for name in self.matrices)
        self.weight_bytes += sum(
            self._num_experts(stack) * _core.packed_bytes(*self._expert(stack)) for stack in self.stacks
        )
        kv = self.attention
        self.page_bytes: int = 0
        group = 1
        if kv is not None:
            layers = len({op.layer for op in plan.attention_ops})
            self.page_bytes = _core.kv_page_bytes(*self.kv_types, layers, kv.num_kv_heads, kv.head_dim)
            group = max(op.num_heads // op.num_kv_heads for op in plan.attention_ops)
        self.routes_bytes = 0
        self.thread_scratch_bytes: int = _core.thread_scratch_bytes(
            [(self._matrix(name)[0], self._matrix(name)[2]) for name in self.matrices],
            *self.kv_types,
            kv.num_kv_heads if kv else 0,
            kv.head_dim if kv else 0,
            group,
        )

        shared = 0
        for op in plan.ops:
            if isinstance(op, Experts):
                kinds = [self._expert(s)[::2] for s in (*gate_stacks(op), Stack(op.down_weight, None))]
                sizes = op.routing.num_experts, op.routing.num_used, options.max_batch_tokens
                thread_bytes, routes_bytes = _core.experts_scratch_bytes(*kinds, *sizes)
                self.thread_scratch_bytes = max(self.thread_scratch_bytes, thread_bytes)
                self.routes_bytes = max(self.routes_bytes, routes_bytes)
        for stack in self.head_stacks:
            head_bytes = _core.heads_scratch_bytes(*self._expert(stack)[::2])
            self.thread_scratch_bytes = max(self.thread_scratch_bytes, head_bytes)
        if kv is not None:
            heads = max(op.num_heads for op in plan.attention_ops)
            shared = _core.attention_shared_bytes(heads, kv.num_kv_heads, kv.head_dim, options.num_pages)
        shared += self.routes_bytes
        self.scratch_bytes: int = self.arena_bytes + self.thread_scratch_bytes * options.num_threads + shared

    def _matrix(self, name: str) -> tuple[int, int, int]:
        """(GGUF type id, rows, columns) of a weight."""
        info = self.source.tensors[name]
        return quants.by_name(info.type).id, math.prod(info.shape[:-1]), info.shape[-1]

    def _expert(self, stack: Stack) -> tuple[int, int, int]:
        """(GGUF type id, rows, columns) of one expert's matrix."""
        info = self.source.tensors[stack.weight]
        return quants.by_name(info.type).id, info.shape[1] // stack.num_parts, info.shape[2]

    def _num_experts(self, stack: Stack) -> int:
        return self.source.tensors[stack.weight].shape[0]

    def _activation_format(self, name: str) -> str:
        return self.activation_formats[quants.by_name(self.source.tensors[name].type).id]

    def _num_rows(self, b: Buffer) -> int:
        count = self.options.max_outputs if b.rows == "outputs" else self.options.max_batch_tokens
        count = count * b.copies + b.spare
        # Sixteen rows may be interleaved: see csrc/core/activations.h.
        return count if count < 16 else -(-count // 16) * 16

    def _row_bytes(self, number_format: str, width: int) -> int:
        return int(self.core.buffer_row_bytes(number_format, width))

    def _check_types(self) -> None:
        names = {quants.by_id(type_id).name for type_id in self.activation_formats}
        for name in (*self.matrices, *self.tables, *(stack.weight for stack in self.stacks)):
            info = self.source.tensors[name]
            if info.type not in names:
                raise UnsupportedError(
                    f"{self.source.path}: tensor {name} has type {info.type}, for which the cpu backend has no "
                    f"kernels; get the model in one of the types that it has: {', '.join(sorted(names))}"
                )
        for name in (*self.vectors, *(stack.bias for stack in self.stacks if stack.bias is not None)):
            info = self.source.tensors[name]
            if info.type not in _VECTOR_TYPES:
                raise UnsupportedError(
                    f"tensor {name} of {self.source.path} has type {info.type}, expected {_VECTOR_TYPES}"
                )


class CpuExecutor:
    """An `Executor` over the C++ core. See `backends.base.Executor`."""

    def __init__(self, layout: _Layout, progress: Progress | None) -> None:
        options = layout.options
        self.options = options
        assert layout.plan.output is not None
        self.vocab_size = layout.plan.output.width
        self.lowered = layout.lowered
        self._pages_used = np.zeros(options.num_pages, dtype=bool)
        self._core: Any = layout.core.Executor(
            options.num_threads,
            options.max_batch_tokens,
            options.max_outputs,
            layout.weight_bytes,
            list(options.cpus),
        )
        kv = layout.attention
        if kv is not None:
            layers = len({op.layer for op in layout.plan.attention_ops})
            self._core.set_kv_cache(*layout.kv_types, layers, kv.num_kv_heads, kv.head_dim, options.num_pages)
        handles = self._name_weights(layout)
        self._source, self._tables, self._rows_read = layout.source, layout.tables, 0
        self._add_stages(layout, handles)
        self._core.finish(layout.arena_bytes, layout.lowered.output, self.vocab_size, layout.lowered.is_fused)
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
        return 0 if self._core is None else min(int(self._core.max_best(num_outputs)), self.vocab_size)

    def step_best(self, batch: Batch, count: int) -> Best:
        """Runs one step; returns the `count` largest logits of each row, overwritten by the next step."""
        if self._best is None or count < 1:
            raise ValueError(f"the best {count} logits of a plan that keeps {self.max_best(1)}")
        self._step(batch, count)
        num_rows = len(batch.output_rows)
        return Best(self._best.ids[:num_rows, :count], self._best.logits[:num_rows, :count])

    def _step(self, batch: Batch, num_best: int) -> None:
        if self._core is None:
            raise ValueError("this executor is closed")
        self._core.step(
            batch.token_ids,
            batch.positions,
            batch.run_starts,
            batch.page_ids,
            batch.page_starts,
            batch.output_rows,
            num_best,
        )
        self._pages_used[batch.page_ids] = True
        self._rows_read += len(batch.token_ids)
        if self._rows_read >= _TABLE_ROWS:
            self._rows_read = 0
            for name in self._tables:
                self._source.drop_pages(name)

    def release_pages(self, page_ids: npt.NDArray[np.int32]) -> None:
        """Gives the memory of these pages back to the system."""
        if self._core is not None:
            self._core.release_pages(page_ids)
            self._pages_used[page_ids] = False

    def memory_bytes(self) -> dict[str, int]:
        """Bytes by purpose."""
        if self._core is None:
            return {"weights": 0, "scratch": 0, "kv_used": 0, "kv_page": 0}
        return {
            "weights": self._core.weight_bytes,
            "scratch": self._core.scratch_bytes,
            "kv_used": int(self._pages_used.sum()) * self._core.page_bytes,
            "kv_page": self._core.page_bytes,
        }

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
        self._logits = np.empty((0, self.vocab_size), np.float32)

    # -- building ---------------------------------------------------------------------------------

    def _name_weights(self, layout: _Layout) -> dict[str, dict[Any, int]]:
        """Loads vectors and tables and makes room for matrices; returns handles by kind and name.

        ``"stack"`` has the handle of each stack's first matrix, ``"biases"`` the vector of all its biases.
        """
        source, core = layout.source, self._core
        handles: dict[str, dict[Any, int]] = {
            kind: {} for kind in ("matrix", "table", "vector", "stack", "biases")
        }

        def decoded(name: str) -> npt.NDArray[np.float32]:
            info = source.tensors[name]
            values = quants.by_name(info.type).decode(source.raw(name)).astype(np.float32, copy=False)
            return values.reshape(info.shape)

        for name in layout.vectors:
            handles["vector"][name] = core.add_vector(np.ascontiguousarray(decoded(name).reshape(-1)))
        for name in layout.tables:
            handles["table"][name] = core.add_table(*layout._matrix(name), source.raw(name))
        for name in layout.matrices:
            handles["matrix"][name] = core.add_matrix(*layout._matrix(name))
        for stack in layout.stacks:
            new = [core.add_matrix(*layout._expert(stack)) for _ in range(layout._num_experts(stack))]
            handles["stack"][stack] = new[0]
            if stack.bias is not None:
                biases = decoded(stack.bias).reshape(len(new), stack.num_parts, -1)[:, stack.part]
                handles["biases"][stack] = core.add_vector(np.ascontiguousarray(biases).reshape(-1))
        return handles

    def _pack_weights(
        self, layout: _Layout, handles: dict[str, dict[Any, int]], progress: Progress | None
    ) -> None:
        source, core = layout.source, self._core
        jobs = [(name, handle, 0, layout._matrix(name)[1]) for name, handle in handles["matrix"].items()]
        jobs += _expert_jobs(layout, handles["stack"])
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

    def _add_stages(self, layout: _Layout, handles: dict[str, dict[Any, int]]) -> None:
        core, lowered = self._core, layout.lowered
        for buffer, offset in zip(lowered.buffers, layout.offsets, strict=True):
            core.add_buffer(
                offset, buffer.rows == "outputs", buffer.format, buffer.width, buffer.copies, buffer.spare
            )
        for spec, cos, sin in lowered.ropes:
            core.add_rope(spec.layout == "interleaved", list(spec.inv_freq), spec.magnitude, cos, sin)
        layers = {op.layer: i for i, op in enumerate(layout.plan.attention_ops)}
        for stage in lowered.stages:
            args: dict[str, Any] = dict(stage.args)
            if "table" in args:
                args["table"] = handles["table"][args["table"]]
            if "weight" in args:
                args["weight"] = handles["vector"][args["weight"]]
            if "layer" in args:
                args["layer"] = layers[args["layer"]]
            if stage.kind == "attention":
                args["sinks"] = -1 if args["sinks"] is None else handles["vector"][args["sinks"]]
            if stage.kind == "matmul":
                args["parts"] = [
                    (
                        handles["matrix"][weight],
                        -1 if bias is None else handles["vector"][bias],
                        out,
                        accumulate,
                    )
                    for weight, bias, out, accumulate in args["parts"]
                ]
            if stage.kind == "head":
                weight, bias, *rest = args["part"]
                args["part"] = (
                    handles["matrix"][weight],
                    -1 if bias is None else handles["vector"][bias],
                    *rest,
                )
            if stage.kind == "route":
                args["bias"] = -1 if args["bias"] is None else handles["vector"][args["bias"]]
            if stage.kind == "heads_matmul":
                stack = Stack(args["heads"], None)
                args["heads"] = (handles["stack"][stack], layout._num_experts(stack))
            for key, value in args.items():
                if isinstance(value, Stack):
                    args[key] = (handles["stack"][value], handles["biases"].get(value, -1))
            for key in ("gate", "up"):
                if stage.kind == "gated_matmul":
                    weight, bias = args[key]
                    args[key] = (handles["matrix"][weight], -1 if bias is None else handles["vector"][bias])
            getattr(core, stage.kind)(**args)


def _expert_jobs(layout: _Layout, handles: dict[Any, int]) -> list[tuple[str, int, int, int]]:
    """What to pack for experts, in the order of the file: (tensor, matrix, first row in the tensor, rows)."""
    jobs = []
    for stack, first in handles.items():
        rows = layout._expert(stack)[1]
        for expert in range(layout._num_experts(stack)):
            begin = (expert * stack.num_parts + stack.part) * rows
            jobs.append((stack.weight, first + expert, begin, rows))
    order = {name: i for i, name in enumerate(dict.fromkeys(job[0] for job in jobs))}
    return sorted(jobs, key=lambda job: (order[job[0]], job[2]))


def fuses() -> bool:
    """Whether stages are fused: always, but for the slow twin that ``TORCHLESS_FUSE=0`` asks for."""
    return os.environ.get("TORCHLESS_FUSE", "1") != "0"


def _check_formats(formats: list[tuple[int, int, int, str]]) -> dict[int, str]:
    """Activation format by GGUF type id; Python and C++ must agree on every block's size."""
    for type_id, block_elements, block_bytes, _ in formats:
        python = quants.by_id(type_id)
        if (python.block_elements, python.block_bytes) != (block_elements, block_bytes):
            raise UnsupportedError(
                f"torchless._core has {python.name} blocks of {block_elements} elements in {block_bytes} bytes, "
                f"Python of {python.block_elements} in {python.block_bytes}: rebuild the extension"
            )
    return {type_id: activation for type_id, _, _, activation in formats}


def _common_attention(plan: Plan) -> Attention | None:
    """The attention whose head sizes all layers share: one KV cache holds them all."""
    ops = plan.attention_ops
    for op in ops:
        if (op.num_kv_heads, op.head_dim) != (ops[0].num_kv_heads, ops[0].head_dim):
            raise UnsupportedError(
                f"layer {op.layer} has {op.num_kv_heads} key/value heads of {op.head_dim}, layer {ops[0].layer} "
                f"{ops[0].num_kv_heads} of {ops[0].head_dim}: the cpu backend needs all layers alike"
            )
    return ops[0] if ops else None
