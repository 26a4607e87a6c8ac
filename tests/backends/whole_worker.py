"""A layer whose tokens see those behind them, random: checks of one level (TORCHLESS_ISA) in a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from executors import Run, make_batch
from random_sources import ArraySource

from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.plan import Plan

VOCAB, POSITIONS, FIRST, HEADS, HEAD_DIM = 50, 620, 2, 4, 24
WIDTH = HEADS * HEAD_DIM


def make_source() -> ArraySource:
    random = np.random.default_rng(11)
    values = {"embd": random.standard_normal((VOCAB, WIDTH)), "types": random.standard_normal((3, WIDTH))}
    values["positions"] = random.standard_normal((FIRST + POSITIONS, WIDTH))
    values |= {name: random.standard_normal((WIDTH, WIDTH)) / 4 for name in "qkvo"}
    return ArraySource(values)


def make_plan(source: ArraySource, *, types: bool = True) -> Plan:
    """Positions are learned, the first rows of their table are not used, nor is the first type."""
    plan = Plan(source.shapes)
    x = plan.add(plan.embed("embd"), plan.embed("positions", index="position", first=FIRST))
    if types:
        x = plan.add(x, plan.embed("types", index="type", first=1))
    q, k, v = (plan.linear(x, name) for name in "qkv")
    heads = {"num_heads": HEADS, "num_kv_heads": HEADS, "head_dim": HEAD_DIM}
    mixed = plan.attention(q, k, v, layer=0, scale=HEAD_DIM**-0.5, causal=False, **heads)
    plan.set_output(plan.select_outputs(plan.add(x, plan.linear(mixed, "o"))), "states")
    return plan


def compile_with(backend: object, threads: int) -> Executor:
    source = make_source()
    options = ExecutorOptions(64, 1024, 1024, threads, "f32")
    executor: Executor = backend.compile(make_plan(source), source, options)  # type: ignore[attr-defined]
    return executor


def states(executor: Executor, *sequences: Sequence[int]) -> list[npt.NDArray[np.float32]]:
    """The states of every token of sequences that are computed in one step."""
    runs, first_page = [], 0
    for ids in sequences:
        runs.append(Run(ids, first_page))
        first_page += len(runs[-1].pages)
    rows = executor.step(make_batch([(run, len(run.ids)) for run in runs])).copy()
    return np.split(rows, np.cumsum([len(ids) for ids in sequences])[:-1])


def main() -> None:
    """The same bits in any batch and for any number of threads, near the reference; prints their hash."""
    random = np.random.default_rng(2)
    texts = [random.integers(0, 2 * VOCAB, n).tolist() for n in (1, 2, 620, 33, 64, 7)]
    one, two = (compile_with(cpu, threads) for threads in (1, 2))
    alone = [states(one, ids)[0] for ids in texts]
    exact = compile_with(reference, 1)
    for executor in (one, two):
        for found, expected in zip(states(executor, *texts), alone, strict=True):
            np.testing.assert_array_equal(found, expected)
        for i in (1, 2, 3):
            np.testing.assert_array_equal(states(executor, texts[i])[0], alone[i])
    for ids, found in zip(texts, alone, strict=True):
        expected = states(exact, ids)[0]
        assert np.abs(found - expected).max() < 2e-5 * expected.std()
    print(hashlib.blake2b(np.concatenate(alone).tobytes(), digest_size=8).hexdigest())


if __name__ == "__main__":
    main()
