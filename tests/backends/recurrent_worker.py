"""A layer with recurrent state, random: its plan, and checks of one level (TORCHLESS_ISA) in a process of its own."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.plan import Piece, Plan
from torchless.weights.source import TensorInfo

VOCAB, WIDTH, TAPS = 50, 96, 4
# key heads, value heads, width of a key and of a value: one block of columns with lanes to spare; two and a bit.
SHAPES = {"narrow": (2, 4, 12, 10), "wide": (2, 6, 32, 72)}


class RandomSource:
    """Weights of one layer."""

    path = "random"

    def __init__(self, shape: str) -> None:
        key_heads, heads, key_dim, value_dim = self.sizes = SHAPES[shape]
        channels, inner = 2 * key_heads * key_dim + heads * value_dim, heads * value_dim
        self.random = np.random.default_rng(5)
        self.data: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, rows, columns in (
            ("embd", VOCAB, WIDTH),
            ("qkv", channels, WIDTH),
            ("z", inner, WIDTH),
            ("ba", 2 * heads, WIDTH),
            ("out", WIDTH, inner),
        ):
            self._add(name, self.random.standard_normal((rows, columns)) * columns**-0.5)
        self._add("conv", self.random.standard_normal((channels, TAPS)))
        self._add("decay", -np.exp(self.random.standard_normal(heads)))
        self._add("bias", self.random.standard_normal(heads))
        self._add("norm", 1 + 0.2 * self.random.standard_normal(value_dim))

    def _add(self, name: str, values: Any) -> None:
        self.data[name] = values.astype("<f4").reshape(-1).view(np.uint8)
        self.tensors[name] = TensorInfo(name, values.shape, "F32", self.data[name].size)

    def raw(self, name: str) -> Any:
        return self.data[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        pass


def make_plan(source: RandomSource, *, is_tiled: bool) -> Plan:
    """The layer, with beta and step of each key head's value heads in turns, or one behind the other."""
    key_heads, heads, key_dim, value_dim = source.sizes
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    numbers, width = plan.linear(x, "ba"), heads if is_tiled else heads // key_heads
    mixed = plan.gated_delta(
        plan.causal_conv(plan.linear(x, "qkv"), "conv"),
        beta=Piece(numbers, 0, width, 2 * width),
        step=Piece(numbers, width, width, 2 * width),
        decay="decay",
        step_bias="bias",
        num_key_heads=key_heads,
        num_heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        is_tiled=is_tiled,
    )
    normed = plan.rms_norm(mixed, "norm", eps=1e-6, num_heads=heads)
    gated = plan.glu(plan.linear(x, "z"), normed, activation="silu")
    plan.set_output(plan.linear(plan.add(x, plan.linear(gated, "out")), "embd"))
    return plan


def compile_cpu(source: RandomSource, threads: int, *, is_tiled: bool = True) -> Executor:
    options = ExecutorOptions(64, 256, 256, threads, num_state_slots=3)
    return cpu.compile(make_plan(source, is_tiled=is_tiled), source, options)  # type: ignore[arg-type]


def check(shape: str, *, is_tiled: bool) -> None:
    """The same bits for any chunk, batch and slot, near the reference."""
    from executors import logits_of, logits_of_batch

    source = RandomSource(shape)
    sequences = [source.random.integers(0, VOCAB, n).tolist() for n in (90, 33, 7)]
    one, two = (compile_cpu(source, threads, is_tiled=is_tiled) for threads in (1, 2))
    alone = [logits_of(one, ids, 1) for ids in sequences]
    for found, chunk in ((one, 90), (two, 1), (two, 3), (two, 40), (two, 90)):
        for ids, expected in zip(sequences, alone, strict=True):
            np.testing.assert_array_equal(logits_of(found, ids, chunk), expected)
    for chunks in ((64, 3, 1), (1, 2, 7), (90, 33, 7)):
        for logits, expected in zip(logits_of_batch(two, sequences, chunks), alone, strict=True):
            np.testing.assert_array_equal(logits, expected)
    plan = make_plan(source, is_tiled=is_tiled)
    exact = reference.compile(plan, source, ExecutorOptions(8, 256, 256, 1))  # type: ignore[arg-type]
    for ids, logits in zip(sequences, alone, strict=True):
        for chunk in (90, 11):
            expected = logits_of(exact, ids, chunk)
            assert np.square(logits - expected).mean() < 1e-10 * np.square(expected).mean()


if __name__ == "__main__":
    for name in SHAPES:
        for tiled in (False, True):
            check(name, is_tiled=tiled)
    sys.exit(0)
