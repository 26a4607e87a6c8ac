"""Layer norms and an MLP without a gate, random: checks of one level (TORCHLESS_ISA) in a process of its own."""

from __future__ import annotations

import hashlib

import numpy as np
from executors import logits_of, logits_of_batch
from random_sources import ArraySource

from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.blocks import plain_mlp
from torchless.plan import Plan

VOCAB, WIDTH, INNER = 50, 72, 160


def make_source() -> ArraySource:
    random = np.random.default_rng(11)
    values = {
        "embd": random.standard_normal((VOCAB, WIDTH)) + 3,  # the mean is worth subtracting
        "blk.0.ffn_up.weight": random.standard_normal((INNER, WIDTH)) / 8,
        "blk.0.ffn_up.bias": random.standard_normal(INNER),
        "blk.0.ffn_down.weight": random.standard_normal((WIDTH, INNER)) / 12,
        "blk.0.ffn_down.bias": random.standard_normal(WIDTH),
    }
    for name in ("a", "b", "c"):
        values |= {
            name: 1 + 0.3 * random.standard_normal(WIDTH),
            f"{name}.bias": random.standard_normal(WIDTH),
        }
    return ArraySource(values)


def make_plan(source: ArraySource) -> Plan:
    """A norm in front, one behind the residual, as in BERT, and one without a bias on the selected rows."""
    plan = Plan(source.shapes)
    x = plan.embed("embd")
    h = plan.layer_norm(x, "a", bias="a.bias", eps=1e-5)
    x = plan.add(x, plain_mlp(plan, h, layer=0, activation="gelu"))
    x = plan.layer_norm(x, "b", bias="b.bias", eps=1e-12)
    x = plan.layer_norm(plan.select_outputs(x), "c", eps=1e-5)
    plan.set_output(plan.linear(x, "embd"))
    return plan


def compile_cpu(source: ArraySource, threads: int) -> Executor:
    return cpu.compile(make_plan(source), source, ExecutorOptions(64, 256, 256, threads))  # type: ignore[arg-type]


def main() -> None:
    """The same bits for any chunk, batch and number of threads, near the reference; prints their hash."""
    source, random = make_source(), np.random.default_rng(2)
    sequences = [random.integers(0, VOCAB, n).tolist() for n in (90, 33, 7)]
    one, two = (compile_cpu(source, threads) for threads in (1, 2))
    alone = [logits_of(one, ids, 1) for ids in sequences]
    for executor, chunk in ((one, 90), (two, 1), (two, 3), (two, 40), (two, 90)):
        for ids, expected in zip(sequences, alone, strict=True):
            np.testing.assert_array_equal(logits_of(executor, ids, chunk), expected)
    for chunks in ((64, 3, 1), (1, 2, 7), (90, 33, 7)):
        for logits, expected in zip(logits_of_batch(two, sequences, chunks), alone, strict=True):
            np.testing.assert_array_equal(logits, expected)
    exact = reference.compile(make_plan(source), source, ExecutorOptions(64, 256, 256, 1))  # type: ignore[arg-type]
    for ids, logits in zip(sequences, alone, strict=True):
        np.testing.assert_allclose(logits, logits_of(exact, ids, 11), rtol=1e-5, atol=2e-4)
    print(hashlib.blake2b(alone[0].tobytes(), digest_size=8).hexdigest())


if __name__ == "__main__":
    main()
