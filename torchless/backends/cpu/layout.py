"""What is known about a compiled plan before memory is taken: types, sizes, places in the arena."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping

from torchless import quants
from torchless.backends.base import ExecutorOptions
from torchless.backends.cpu.arena import Lifetime, plan_arena
from torchless.backends.cpu.extension import load_extension
from torchless.backends.cpu.lower import lower
from torchless.backends.cpu.lower_attention import ONES, norm_name
from torchless.backends.cpu.lower_experts import Stack, gate_stacks, stacks
from torchless.backends.cpu.lower_recurrent import scratch_needs, state_sizes
from torchless.backends.cpu.residency import Candidate, WeightKey, choose_mapped
from torchless.backends.cpu.stages import Buffer, LoweredPlan
from torchless.errors import UnsupportedError
from torchless.kv_types import split_kv_type
from torchless.plan import (
    Attention,
    CausalConv,
    Embed,
    Experts,
    GatedDelta,
    HeadsLinear,
    LayerNorm,
    Linear,
    Op,
    Plan,
    RmsNorm,
    ScaleColumns,
)
from torchless.weights.pieces import pieces_of
from torchless.weights.source import TensorInfo, WeightSource

__all__ = ["Layout", "fuses"]

_log = logging.getLogger("torchless")

_VECTOR_TYPES = ("F32", "F16", "BF16")
_GROUP_TILES = 16
"""Tiles of the columns that a gated product takes together (csrc/core/activations.h: kGroupColumns)."""


class Layout:
    """Everything about a compiled plan that is known before memory is taken."""

    def __init__(self, plan: Plan, source: WeightSource, options: ExecutorOptions) -> None:
        _core = load_extension()
        self.core = _core
        self.plan = plan
        self.source = source
        self.options = options
        self.activation_formats = _check_formats(_core.formats(options.activations))
        products = [op for op in plan.ops if isinstance(op, Linear)]
        # Parts of tensors by name (`Linear.matrix`): tensor, first row, end. All rows of most; of a few, some.
        self.parts = {op.matrix: (op.weight, *op.rows) for op in products if op.rows is not None}
        self.parts |= {
            op.bias_vector: (op.bias, *op.rows) for op in products if op.bias_vector and op.bias and op.rows
        }
        self.matrices = tuple(dict.fromkeys(op.matrix for op in products))
        self.tables = tuple(dict.fromkeys(op.weight for op in plan.ops if isinstance(op, Embed)))
        # Held column by column.
        self.transposed = frozenset(op.weight for op in plan.ops if isinstance(op, CausalConv))
        self.vectors = tuple(dict.fromkeys(name for op in plan.ops for name in _vectors(op) if name))
        head_names = dict.fromkeys(op.head_weights for op in plan.ops if isinstance(op, HeadsLinear))
        self.head_stacks = tuple(Stack(name, None) for name in head_names)
        self.stacks = (*stacks(plan), *self.head_stacks)
        self._check_types()
        if options.fast:
            self._check_fast()
        # (key/value heads, head dimension) of each layer that has a place in the cache.
        self.kv_layers = [(op.num_kv_heads, op.head_dim) for op in plan.cache_ops]
        self.kv_types = split_kv_type(options.kv_type)
        self.lowered: LoweredPlan = lower(plan, self._activation_format, fuse=fuses())
        self.offsets, self.arena_bytes = plan_arena(
            [
                Lifetime(self._num_rows(b) * self._row_bytes(b.format, b.width), b.first, b.last)
                for b in self.lowered.buffers
            ]
        )
        sizes: dict[WeightKey, int] = {name: _core.packed_bytes(*self.matrix(name)) for name in self.matrices}
        sizes |= {
            stack: self.num_experts(stack) * _core.packed_bytes(*self.expert(stack)) for stack in self.stacks
        }
        self.mapped = choose_mapped(self._candidates(sizes), options.packed_bytes)
        self.weight_bytes = sum(size for key, size in sizes.items() if key not in self.mapped)
        self._count_cache_and_scratch()

    def _count_cache_and_scratch(self) -> None:
        """Bytes of a cache page, and of what a step writes."""
        _core, plan, options = self.core, self.plan, self.options
        self.page_bytes: int = _core.kv_page_bytes(*self.kv_types, self.kv_layers) if self.kv_layers else 0
        attentions = {
            (op.num_kv_heads, op.head_dim, op.num_heads // op.num_kv_heads) for op in plan.attention_ops
        }
        self.routes_bytes = 0
        self.thread_scratch_bytes: int = _core.thread_scratch_bytes(
            [(*self.matrix(name)[::2], name in self.mapped) for name in self.matrices],
            *self.kv_types,
            sorted(attentions),
            options.activations,
            options.fast,
        )
        shared = 0
        for op in plan.ops:
            if isinstance(op, Experts):
                wanted = (*gate_stacks(op), Stack(op.down_weight, op.down_bias))
                kinds = [(*self.expert(stack)[::2], stack in self.mapped) for stack in wanted]
                sizes = op.routing.num_experts, op.routing.num_used, options.max_batch_tokens
                thread_bytes, routes_bytes = _core.experts_scratch_bytes(*kinds, *sizes, options.activations)
                self.thread_scratch_bytes = max(self.thread_scratch_bytes, thread_bytes)
                self.routes_bytes = max(self.routes_bytes, routes_bytes)
        for stack in self.head_stacks:
            kind = (*self.expert(stack)[::2], stack in self.mapped)
            head_bytes = _core.heads_scratch_bytes(*kind, options.activations)
            self.thread_scratch_bytes = max(self.thread_scratch_bytes, head_bytes)
        for kv_heads, head_dim, group in attentions:
            needed = _core.attention_shared_bytes(kv_heads * group, kv_heads, head_dim, options.num_pages)
            shared = max(shared, needed)
        shared += self.routes_bytes
        self.state_sizes = state_sizes(plan, _core)
        self.slot_bytes: int = _core.state_slot_bytes(self.state_sizes)
        recurrent: int = _core.recurrent_scratch_bytes(*scratch_needs(plan, self.lowered))
        self.thread_scratch_bytes = max(self.thread_scratch_bytes, recurrent)
        self.file_bytes = self._file_window() * options.num_threads
        self.scratch_bytes: int = self.arena_bytes + self.thread_scratch_bytes * options.num_threads + shared

    def _candidates(self, sizes: Mapping[WeightKey, int]) -> list[Candidate]:
        """What may stay in the file: tensors stored as they are used. Experts last: a token reads but some."""
        keys: tuple[WeightKey, ...] = () if self.options.lazy == "off" else stacks(self.plan)
        if self.options.lazy == "all":
            keys = (*self.matrices, *self.head_stacks, *keys)
        return [Candidate(key, sizes[key]) for key in keys if pieces_of(self.source, self.tensor_name(key))]

    def _file_window(self) -> int:
        """Bytes of files that one thread has mapped at once: gate and up of a group of columns, or a head's matrix."""
        most = 0
        for key in self.mapped:
            type_id, rows, columns = self.expert(key) if isinstance(key, Stack) else self.matrix(key)
            num_tiles = -(-rows // 16) if key in self.head_stacks else 2 * _GROUP_TILES
            most = max(most, self.core.file_window_bytes(type_id, columns, num_tiles))
        return most

    def tensor_name(self, key: WeightKey) -> str:
        """The tensor that holds a matrix or a stack."""
        return key.weight if isinstance(key, Stack) else self.parts.get(key, (key, 0, 0))[0]

    def matrix(self, name: str) -> tuple[int, int, int]:
        """(GGUF type id, rows, columns) of a weight, or of the rows that a product takes of it."""
        info = self.tensor(name)
        _, first, end = self.parts.get(name, (name, 0, math.prod(info.shape[:-1])))
        return quants.by_name(info.type).id, end - first, info.shape[-1]

    def tensor(self, name: str) -> TensorInfo:
        """The tensor of a weight, which may be a part of it."""
        return self.source.tensors[self.tensor_name(name)]

    def expert(self, stack: Stack) -> tuple[int, int, int]:
        """(GGUF type id, rows, columns) of one expert's matrix."""
        info = self.source.tensors[stack.weight]
        return quants.by_name(info.type).id, info.shape[1] // stack.num_parts, info.shape[2]

    def num_experts(self, stack: Stack) -> int:
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
            info = self.tensor(name)
            if info.type not in names:
                raise UnsupportedError(
                    f"{self.source.path}: tensor {name} has type {info.type}, for which the cpu backend has no "
                    f"kernels; get the model in one of the types that it has: {', '.join(sorted(names))}"
                )
        vectors = (name for name in self.vectors if not name.startswith(ONES))
        for name in (*vectors, *(stack.bias for stack in self.stacks if stack.bias is not None)):
            info = self.tensor(name)
            if info.type not in _VECTOR_TYPES:
                raise UnsupportedError(
                    f"tensor {name} of {self.source.path} has type {info.type}, expected {_VECTOR_TYPES}"
                )

    def warn_of_useless_fast_mode(self) -> None:
        """Says so where fast mode changes nothing."""
        types = self.core.fast_types()
        if not any(self.matrix(name)[0] in types for name in self.matrices):
            names = ", ".join(quants.by_id(type_id).name for type_id in types)
            _log.warning("fast mode changes nothing in %s: no matrix is in %s", self.source.path, names)

    def _check_fast(self) -> None:
        """That fast mode is possible."""
        if self.options.activations != "int8":
            raise UnsupportedError(
                f"fast mode multiplies int8 activations, not {self.options.activations}: choose one of the two"
            )
        if self.options.lazy == "all":
            raise UnsupportedError(
                "fast mode needs weights that are packed when they are loaded: leave it or lazy out"
            )
        if not self.core.fast_types():
            raise UnsupportedError(
                f"level {self.core.isa()} has no products in fast mode, only avx512 has: leave it out"
            )


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


def _vectors(op: Op) -> tuple[str | None, ...]:
    """Names of the vectors that an op reads."""
    if isinstance(op, RmsNorm):
        return (norm_name(op),)
    if isinstance(op, LayerNorm):
        return op.weight, op.bias
    if isinstance(op, Linear):
        return (op.bias_vector,)
    if isinstance(op, Attention):
        return (op.sinks,)
    if isinstance(op, Experts):
        return op.selection_bias, op.expert_scale
    if isinstance(op, GatedDelta):
        return op.decay, op.step_bias
    return (op.weight,) if isinstance(op, CausalConv | ScaleColumns) else ()
