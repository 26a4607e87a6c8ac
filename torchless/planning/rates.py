"""How fast products are here, measured: for each weight type the bytes that one token streams through and the
operations that a prompt makes, and how long attention takes.

Roofs (`bench.machine`) say what the machine allows. Whether a format reaches them depends on its kernel, so the kernel
itself is timed: an executor of a plan that is nothing but products, over weights that no cache holds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchless import quants
from torchless.backends.base import PAGE_TOKENS, Batch, Executor, ExecutorOptions
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.plan import Attention, Plan
from torchless.weights.source import TensorInfo

__all__ = ["PROMPT_TOKENS", "Rates", "Setting", "measure_attention", "measure_rates"]

PROMPT_TOKENS = 512
"""Of the prompt whose prefill is timed."""

_STREAMED_BYTES = 128 << 20  # of weights, more than caches hold
# Read between steps: none shall find weights in a cache that the last one left there.
_EVICTING_BYTES = 128 << 20
_WIDTH = 2048  # of a matrix: that of a small model; rates of wider ones are the same
_TABLE_ROWS = 32
_STEPS = 7  # of which the median counts: the fastest promises what a machine seldom keeps


@dataclass(frozen=True, slots=True)
class Setting:
    """What rates depend on besides the machine: threads, activations and the cache's types."""

    num_threads: int
    activations: str = "int8"
    kv_type: str = "f16"

    def options(self, num_tokens: int) -> ExecutorOptions:
        """Of an executor for one sequence of so many tokens."""
        return ExecutorOptions(
            -(-num_tokens // PAGE_TOKENS),
            num_tokens,
            1,
            self.num_threads,
            self.kv_type,
            activations=self.activations,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Of products with one weight type.

    Attributes:
        decode_bytes_per_second: packed weights, with one token.
        prefill_operations_per_second: two per multiply-add, with `PROMPT_TOKENS` tokens.
    """

    decode_bytes_per_second: float
    prefill_operations_per_second: float

    @classmethod
    def average(cls, measured: Sequence[Rates]) -> Rates:
        """Of rates measured at different times: their average time."""
        return cls(
            statistics.harmonic_mean([one.decode_bytes_per_second for one in measured]),
            statistics.harmonic_mean([one.prefill_operations_per_second for one in measured]),
        )


def measure_rates(type_name: str, setting: Setting, *, streamed_bytes: int = _STREAMED_BYTES) -> Rates:
    """Times products with random weights of a type.

    Takes about half a second and, while it runs, twice `streamed_bytes` of memory and 128 MiB.
    """
    stored = quants.by_name(type_name)
    matrix_bytes = _WIDTH * _WIDTH // stored.block_elements * stored.block_bytes
    num_matrices = max(2, streamed_bytes // matrix_bytes)
    num_bytes, decode_s = _time_products(type_name, num_matrices, 1, setting)
    _, prefill_s = _time_products(type_name, 2, PROMPT_TOKENS, setting)
    return Rates(num_bytes / decode_s, 2 * 2 * _WIDTH * _WIDTH * PROMPT_TOKENS / prefill_s)


def measure_attention(op: Attention, setting: Setting, num_tokens: int) -> float:
    """Seconds that one layer's attention takes in a prompt of so many tokens: keys and values stored, then read.

    Of one token it is what a layer costs in decoding besides its products, the threads' meetings included.
    """
    source = _RandomSource()
    for name, width in (("q", op.num_heads * op.head_dim), ("kv", op.num_kv_heads * op.head_dim)):
        source.add(name, (_TABLE_ROWS, width), "F32")
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    kv = plan.embed("kv")
    out = plan.attention(
        *(plan.embed("q"), kv, kv),
        layer=0,
        num_heads=op.num_heads,
        num_kv_heads=op.num_kv_heads,
        head_dim=op.head_dim,
        scale=op.scale,
        window=op.window,
        softcap=op.softcap,
    )
    plan.set_output(plan.select_outputs(out))
    return _typical_step(plan, source, num_tokens, setting)[1]


def _time_products(type_name: str, num_matrices: int, num_tokens: int, setting: Setting) -> tuple[int, float]:
    """(packed bytes, seconds of a step) of several matrices.

    One token's are multiplied by the same input. A prompt's follow each other, with a norm before each, since what lies
    between the products of a layer takes a twentieth of a prompt's time.
    """
    source = _RandomSource()
    source.add("table", (_TABLE_ROWS, _WIDTH), "F32")
    names = [f"w{i}" for i in range(num_matrices)]
    for name in names:
        source.add(name, (_WIDTH, _WIDTH), type_name)
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = out = plan.embed("table")
    for name in names:
        out = plan.linear(x if num_tokens == 1 else plan.rms_norm(out, None, eps=1e-5), name)
    plan.set_output(plan.select_outputs(out))
    return _typical_step(plan, source, num_tokens, setting)


def _typical_step(plan: Plan, source: _RandomSource, num_tokens: int, setting: Setting) -> tuple[int, float]:
    """(packed bytes, seconds of a step); one token finds nothing in the caches, as in a model larger than they are."""
    from torchless.backends import cpu

    executor: Executor = cpu.compile(plan, source, setting.options(num_tokens))
    try:
        num_bytes = executor.memory_bytes()["weights"]
        batch = _batch(num_tokens)
        executor.step(batch)  # warms up
        others = np.ones(_EVICTING_BYTES // 8, np.int64) if num_tokens == 1 else None
        steps = []
        for _ in range(_STEPS):
            if others is not None:
                others.sum()
            steps.append(_seconds(executor, batch))
        return num_bytes, statistics.median(steps)
    finally:
        executor.close()


def _seconds(executor: Executor, batch: Batch) -> float:
    start = time.perf_counter()
    executor.step(batch)
    return time.perf_counter() - start


def _batch(num_tokens: int) -> Batch:
    """One sequence's tokens from position 0 on; the last one's logits are wanted."""
    num_pages = -(-num_tokens // PAGE_TOKENS)

    def array(values: Iterable[int]) -> npt.NDArray[np.int32]:
        return np.array(list(values), np.int32)

    return Batch(
        array(i % _TABLE_ROWS for i in range(num_tokens)),
        array(range(num_tokens)),
        array([0, num_tokens]),
        array(range(num_pages)),
        array([0, num_pages]),
        array([num_tokens - 1]),
    )


class _RandomSource:
    """Random weights in memory; implements `WeightSource`."""

    format: Literal["gguf", "safetensors"] = "gguf"
    rope_layout: Literal["interleaved", "half"] = "half"

    def __init__(self) -> None:
        self.path = Path("random weights")
        self.metadata: Mapping[str, Any] = {}
        self._tensors: dict[str, TensorInfo] = {}
        self.tensors: Mapping[str, TensorInfo] = self._tensors
        self._blocks: dict[str, npt.NDArray[np.uint8]] = {}

    def add(self, name: str, shape: tuple[int, int], type_name: str) -> None:
        """Another tensor. All of a type and shape have the same bytes in the file; packed, each has its own."""
        key = f"{type_name}{shape}"
        if key not in self._blocks:
            chunks = random_blocks(BLOCK_TYPES[type_name], math.prod(shape), shape[1] ** -0.5, [len(key)])
            self._blocks[key] = np.concatenate(list(chunks))
        self._blocks[name] = self._blocks[key]
        self._tensors[name] = TensorInfo(name, shape, type_name, self._blocks[key].size)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The stored bytes of a tensor."""
        return self._blocks[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        """They are in no file."""

    def close(self) -> None:
        """Nothing is open."""
