"""Trees of drafted tokens: every node has the bits of a plain run, on every level; batches that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import open_executor
from tree_worker import SHAPES, VARIANTS, compile_with, differences, ints, run

from torchless.backends import cpu, reference
from torchless.backends.base import Batch
from torchless.bench.synthetic import write_synthetic

core = pytest.importorskip("torchless._core")

WORKER = Path(__file__).with_name("tree_worker.py")
BACKENDS = pytest.mark.parametrize("backend", [cpu, reference], ids=["cpu", "reference"])


def check(level: str, variant: str, kv: str, fuse: str = "1") -> str:
    path = os.pathsep.join([str(WORKER.parent.parent), *sys.path])
    result = subprocess.run(
        [sys.executable, str(WORKER), variant, kv],
        env={**os.environ, "TORCHLESS_ISA": level, "TORCHLESS_FUSE": fuse, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("level", core.isa_levels())
def test_every_node_has_the_bits_of_a_plain_run(level: str, variant: str) -> None:
    assert check(level, variant, "f16") == check(level, variant, "f16", fuse="0")


@pytest.mark.parametrize("kv", ["f32", "bf16", "q8_0", "q4_0", "k=q8_0,v=f16"])
def test_every_type_of_keys_and_values_is_moved_exactly(kv: str) -> None:
    check(core.isa(), "shaped", kv)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reference_backend_computes_the_same_trees(variant: str) -> None:
    executor = compile_with(reference, variant, "f32", 1)
    for seed, shapes in enumerate(SHAPES[:4]):
        for found, expected in differences(executor, np.random.default_rng(seed), shapes):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_backends_agree_on_trees() -> None:
    def nodes(backend: Any) -> list[Any]:
        executor = compile_with(backend, "shaped", "f32", 1)
        return differences(executor, np.random.default_rng(2), [(45, 16)])

    for (ours, _), (exact, _) in zip(nodes(cpu), nodes(reference), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=2e-3, atol=2e-3)


def batch_with(parents: list[int], positions: list[int], num_pages: int = 1) -> Batch:
    n = len(positions)
    return Batch(
        ints([5] * n), ints(positions), ints([0, n]), ints(range(num_pages)), ints([0, num_pages]),
        ints(range(n)), tree_parents=ints(parents),
    )  # fmt: skip


@BACKENDS
@pytest.mark.parametrize(
    ("parents", "positions", "message"),
    [
        ([-1, 0], [0, 1, 2], "2 tree_parents of 3 tokens"),
        ([-1, 0, 2], [0, 1, 2], "row 2 follows row 2"),
        ([-1, 2, 0], [0, 1, 1], "row 1 follows row 2"),
        ([-1, -2, 0], [0, 1, 1], "row 1 follows row -2"),
        ([0, 0, 0], [0, 1, 1], "row 0 follows row 0"),
        ([-1, 0, 0], [0, 1, 2], "position of a row is not the next"),
        ([-1] + [0] * 32, [0] + [1] * 32, "do not cover"),
    ],
)
def test_a_malformed_tree_is_refused(
    backend: Any, parents: list[int], positions: list[int], message: str
) -> None:
    executor = compile_with(backend, "plain", "f32", 1)
    with pytest.raises(ValueError, match=message):
        executor.step(batch_with(parents, positions))
    executor.step(batch_with([-1, 0, 0], [0, 1, 1]))  # and the executor goes on


@BACKENDS
def test_a_row_cannot_follow_another_run(backend: Any) -> None:
    executor = compile_with(backend, "plain", "f32", 1)
    two = Batch(*(ints(v) for v in ([5] * 4, [0, 1, 0, 1], [0, 2, 4], [0, 1], [0, 1, 2], [3])))
    executor.step(two)
    with pytest.raises(ValueError, match="not an earlier row of its run"):
        executor.step(replace(two, tree_parents=ints([-1, 0, -1, 0])))


@BACKENDS
def test_slots_that_do_not_exist_are_not_copied(backend: Any) -> None:
    executor = compile_with(backend, "plain", "f32", 1)
    run(executor, [1, 2], 0, [0], 1)
    for pages, source, target in (([99], [0], [1]), ([0], [32], [0]), ([0], [0], [-1])):
        with pytest.raises(ValueError, match=r"page id|slot"):
            executor.copy_slots(ints(pages), ints(source), ints(target))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_recurrent_states_take_no_trees(backend: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", "test-hybrid", "Q8_0")
    executor = open_executor(tmp_path / "model.gguf", backend)
    batch = replace(batch_with([-1, 0, 0], [0, 1, 1]), state_slots=ints([0]))
    with pytest.raises(ValueError, match="recurrent state"):
        executor.step(batch)
