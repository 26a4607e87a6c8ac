"""Latent attention on the CPU: columns side by side, products by heads, one key/value head for all queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import logits_of, logits_of_batch

from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.bench.random_blocks import BLOCK_TYPES, random_blocks
from torchless.errors import UnsupportedError
from torchless.plan import Piece, Plan, RopeSpec
from torchless.weights.source import TensorInfo

pytest.importorskip("torchless._core")

HEADS, PLAIN, ROTATED, LATENT, VALUE, VOCAB, WIDTH = 6, 32, 16, 64, 24, 50, 96


class RandomSource:
    """Weights of one layer; those of heads have a type of their own."""

    path = "random"

    def __init__(self, head_type: str) -> None:
        random = np.random.default_rng(5)
        plain = {
            "embd": (VOCAB, WIDTH),
            "q": (HEADS * (PLAIN + ROTATED), WIDTH),
            "kv": (LATENT + ROTATED, WIDTH),
            "out": (WIDTH, HEADS * VALUE),
        }
        self.data: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, shape in plain.items():
            values = (random.standard_normal(shape) * shape[1] ** -0.5).astype("<f4")
            self._add(name, shape, "F32", values)
        for name, stack in (("k_b", (HEADS, LATENT, PLAIN)), ("v_b", (HEADS, VALUE, LATENT))):
            blocks = random_blocks(BLOCK_TYPES[head_type], int(np.prod(stack)), 0.2, [len(name), stack[1]])
            self._add(name, stack, head_type, np.concatenate(list(blocks)))

    def _add(self, name: str, shape: tuple[int, ...], kind: str, values: Any) -> None:
        self.data[name] = values.reshape(-1).view(np.uint8)
        self.tensors[name] = TensorInfo(name, shape, kind, self.data[name].size)

    def raw(self, name: str) -> Any:
        return self.data[name]

    def drop_pages(self, name: str, start: int = 0, num_bytes: int | None = None) -> None:
        pass


def make_plan(source: RandomSource) -> Plan:
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    query, kept = plan.linear(x, "q"), plan.linear(x, "kv")
    stride, width = PLAIN + ROTATED, ROTATED + LATENT
    through = plan.heads_linear(plan.columns([Piece(query, 0, PLAIN, stride)], count=HEADS), "k_b")
    q = plan.columns([Piece(query, PLAIN, ROTATED, stride), Piece(through, 0, LATENT, LATENT)], count=HEADS)
    k, v = (plan.columns([Piece(kept, LATENT, ROTATED), Piece(kept, 0, LATENT)]) for _ in range(2))
    spec = RopeSpec("interleaved", tuple(1.0 / (j + 1) for j in range(ROTATED // 2)))
    mixed = plan.attention(
        plan.rope(q, num_heads=HEADS, head_dim=width, spec=spec),
        plan.rope(k, num_heads=1, head_dim=width, spec=spec),
        v,
        layer=0,
        num_heads=HEADS,
        num_kv_heads=1,
        head_dim=width,
        scale=0.2,
    )
    values = plan.heads_linear(plan.columns([Piece(mixed, ROTATED, LATENT, width)], count=HEADS), "v_b")
    plan.set_output(plan.linear(plan.add(x, plan.linear(values, "out")), "embd"))
    return plan


def executor(source: RandomSource, threads: int) -> Executor:
    options = ExecutorOptions(64, 256, 256, threads, "f32")
    return cpu.compile(make_plan(source), source, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("head_type", ["F32", "BF16", "Q8_0", "Q5_0"])
def test_bits_are_the_same_for_any_chunk_and_batch_and_near_the_reference(head_type: str) -> None:
    source = RandomSource(head_type)
    random = np.random.default_rng(2)
    sequences = [random.integers(0, VOCAB, n).tolist() for n in (200, 33, 7)]
    one, two = executor(source, 1), executor(source, 2)
    alone = [logits_of(one, ids, 1) for ids in sequences]
    for found, chunk in ((one, 200), (two, 1), (two, 40), (two, 200)):
        for ids, expected in zip(sequences, alone, strict=True):
            np.testing.assert_array_equal(logits_of(found, ids, chunk), expected)
    for found, expected in zip(logits_of_batch(two, sequences, (64, 3, 1)), alone, strict=True):
        np.testing.assert_array_equal(found, expected)
    exact = reference.compile(make_plan(source), source, ExecutorOptions(8, 256, 256, 1))  # type: ignore[arg-type]
    for ids, logits in zip(sequences, alone, strict=True):
        expected = logits_of(exact, ids, 200)
        limit = 1e-10 if head_type == "F32" else 1e-4
        assert np.square(logits - expected).mean() < limit * np.square(expected).mean()


def test_memory_is_what_was_announced() -> None:
    source = RandomSource("Q8_0")
    plan, options = make_plan(source), ExecutorOptions(8, 64, 64, 2, "f32")
    announced = cpu.required_bytes(plan, source, options)  # type: ignore[arg-type]
    used = cpu.compile(plan, source, options).memory_bytes()  # type: ignore[arg-type]
    assert announced["weights"] == used["weights"]
    assert used["scratch"] <= announced["scratch"] + 8192


def test_columns_beyond_a_value_are_refused() -> None:
    source = RandomSource("F32")
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    with pytest.raises(UnsupportedError, match="columns up to 97"):
        plan.columns([Piece(x, 1, 48, 48)], count=2)
    with pytest.raises(UnsupportedError, match="6 x 32 inputs"):
        plan.heads_linear(x, "k_b")
