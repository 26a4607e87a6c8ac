"""Trees of tokens against plain runs of their paths: checks of one level (TORCHLESS_ISA) in a process of its own.

Usage: tree_worker.py VARIANT KV_TYPE. Prints a hash of all logits, or fails saying what differed.
"""

from __future__ import annotations

import hashlib
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from random_sources import ArraySource

from torchless.backends import cpu
from torchless.backends.base import PAGE_TOKENS, Batch, Executor, ExecutorOptions
from torchless.plan import Plan, RopeSpec

VOCAB, HEADS, KV_HEADS, HEAD_DIM, WIDTH, LAYERS = 60, 6, 2, 40, 64, 2
NUM_PAGES = 64
SPEC = RopeSpec("half", tuple(0.3 / (j + 1) for j in range(HEAD_DIM // 2)))
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 5},
    "shaped": {
        "softcap": 5.0,
        "slopes": tuple(0.01 * h for h in range(HEADS)),
        "sinks": "sinks",
        "window": 70,
    },
}
Logits = npt.NDArray[np.float32]


def compile_with(backend: Any, variant: str, kv: str, threads: int) -> Executor:
    """A model of two layers with random weights."""
    random = np.random.default_rng(3)
    values = {"embd": random.standard_normal((VOCAB, WIDTH)), "sinks": random.standard_normal(HEADS)}
    for layer in range(LAYERS):
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            values[f"{name}{layer}"] = random.standard_normal((heads * HEAD_DIM, WIDTH)) * 3 / WIDTH**0.5
        values[f"o{layer}"] = random.standard_normal((WIDTH, HEADS * HEAD_DIM)) / WIDTH**0.5
    source = ArraySource(values)
    plan = Plan(source.shapes)
    x = plan.embed("embd")
    for layer in range(LAYERS):
        q, k, v = (plan.linear(x, f"{name}{layer}") for name in "qkv")
        q = plan.rope(q, num_heads=HEADS, head_dim=HEAD_DIM, spec=SPEC)
        k = plan.rope(k, num_heads=KV_HEADS, head_dim=HEAD_DIM, spec=SPEC)
        heads = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": HEAD_DIM}
        mixed = plan.attention(q, k, v, layer=layer, scale=0.1, **heads, **VARIANTS[variant])
        x = plan.add(x, plan.linear(mixed, f"o{layer}"))
    plan.set_output(plan.linear(plan.select_outputs(x), "embd"))
    executor: Executor = backend.compile(plan, source, ExecutorOptions(NUM_PAGES, 600, 600, threads, kv))
    return executor


class Tree:
    """A sequence's tokens, of which all but the last are computed, with a random tree behind them."""

    def __init__(self, random: np.random.Generator, length: int, num_nodes: int, pages: list[int]) -> None:
        self.ids = random.integers(0, VOCAB, length).tolist()
        self.tokens = [self.ids[-1], *random.integers(0, VOCAB, num_nodes).tolist()]
        self.parents = [-1, *(int(random.integers(max(i - 4, 0), i)) for i in range(1, num_nodes + 1))]
        needed = -(-(length + num_nodes + 4) // PAGE_TOKENS)
        self.pages = [pages.pop() for _ in range(needed)]

    def path(self, node: int) -> list[int]:
        """Nodes from the first to this one."""
        return [*self.path(self.parents[node]), node] if node else [0]

    @property
    def depths(self) -> list[int]:
        """Of each node."""
        return [len(self.path(node)) - 1 for node in range(len(self.tokens))]


def ints(values: Any) -> npt.NDArray[np.int32]:
    """As executors take them."""
    return np.array(values, dtype=np.int32)


def run(executor: Executor, ids: list[int], first: int, pages: list[int], num_outputs: int) -> Logits:
    """A plain run; logits of its last rows."""
    n = len(ids)
    batch = Batch(
        ints(ids), ints(range(first, first + n)), ints([0, n]), ints(pages), ints([0, len(pages)]),
        ints(range(n - num_outputs, n)),
    )  # fmt: skip
    return executor.step(batch).copy()


def run_trees(executor: Executor, trees: list[Tree]) -> list[Logits]:
    """Logits of all nodes of all trees, computed in one step."""
    ids, positions, starts, pages, page_starts, parents = [], [], [0], [], [0], []
    for tree in trees:
        parents += [-1 if parent < 0 else starts[-1] + parent for parent in tree.parents]
        ids += tree.tokens
        positions += [len(tree.ids) - 1 + depth for depth in tree.depths]
        starts.append(len(ids))
        pages += tree.pages
        page_starts.append(len(pages))
    batch = Batch(
        *(ints(values) for values in (ids, positions, starts, pages, page_starts, range(len(ids)))),
        tree_parents=ints(parents),
    )
    rows = executor.step(batch).copy()
    return [rows[begin:end] for begin, end in pairwise(starts)]


def differences(executor: Executor, random: np.random.Generator, shapes: list[tuple[int, int]]) -> list[Any]:
    """Pairs (found, expected) for trees of (tokens before, nodes): of all nodes, and of what follows a kept path."""
    pages = random.permutation(NUM_PAGES).tolist()
    trees = [Tree(random, length, nodes, pages) for length, nodes in shapes]
    for tree in trees:
        for first in range(0, len(tree.ids) - 1, 100):
            chunk = tree.ids[first : min(first + 100, len(tree.ids) - 1)]
            run(executor, chunk, first, tree.pages, 0)
    found = run_trees(executor, trees)
    pairs = []
    for tree, rows in zip(trees, found, strict=True):
        plain = [pages.pop() for _ in tree.pages]
        run(executor, tree.ids, 0, plain, 0)
        leaves = set(range(len(tree.tokens))) - set(tree.parents)
        for leaf in leaves:
            path = tree.path(leaf)
            expected = run(
                executor, [tree.tokens[node] for node in path], len(tree.ids) - 1, plain, len(path)
            )
            pairs.append((rows[path], expected))
        # One path is kept: its keys and values are moved, and three more tokens follow.
        path = tree.path(int(random.choice(sorted(leaves))))
        start = len(tree.ids) - 1
        executor.copy_slots(
            ints(tree.pages), ints([start + node for node in path]), start + ints(range(len(path)))
        )
        more, kept = [7, 8, 9], [tree.tokens[node] for node in path]
        expected = run(executor, [*kept, *more], start, plain, 3)
        pairs.append((run(executor, more, start + len(path), tree.pages, 3), expected))
        pages += plain
    return pairs


SHAPES = [[(1, 3)], [(30, 8)], [(31, 16)], [(32, 1), (3, 5)], [(45, 40)], [(507, 12)], [(530, 9), (64, 7)]]


def main(variant: str, kv: str) -> None:
    """Fails where a bit differs."""
    digests = set()
    for threads in (1, 2):
        executor = compile_with(cpu, variant, kv, threads)
        digest = hashlib.blake2b(digest_size=8)
        for seed, shapes in enumerate(SHAPES):
            for found, expected in differences(executor, np.random.default_rng(seed), shapes):
                if not np.isfinite(expected).all():
                    sys.exit("logits are not finite")
                if found.tobytes() != expected.tobytes():
                    rows = np.flatnonzero((found != expected).any(axis=1))
                    sys.exit(
                        f"{threads} threads, trees {shapes}: logits differ in rows {rows} of {len(found)}"
                    )
                digest.update(found.tobytes())
        digests.add(digest.hexdigest())
    if len(digests) > 1:
        sys.exit("the bits depend on the number of threads")
    print(digests.pop())


if __name__ == "__main__":
    main(*sys.argv[1:])
