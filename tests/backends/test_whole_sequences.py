"""Attention over whole sequences and learned positions: bits, the reference, and batches that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from executors import Run, make_batch
from whole_worker import (
    FIRST,
    HEAD_DIM,
    POSITIONS,
    VOCAB,
    WIDTH,
    compile_with,
    make_plan,
    make_source,
    states,
)

from torchless.backends import cpu, reference
from torchless.errors import UnsupportedError
from torchless.plan import Plan

core = pytest.importorskip("torchless._core")

WORKER = Path(__file__).with_name("whole_worker.py")
BACKENDS = pytest.mark.parametrize("backend", [cpu, reference], ids=["cpu", "reference"])


@pytest.mark.parametrize("level", core.isa_levels())
def test_whole_sequences_keep_the_promise(level: str) -> None:
    hashes = set()
    for fuse in ("0", "1"):
        path = os.pathsep.join([str(WORKER.parent.parent), *sys.path])
        result = subprocess.run(
            [sys.executable, str(WORKER)],
            env={**os.environ, "TORCHLESS_ISA": level, "TORCHLESS_FUSE": fuse, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        hashes.add(result.stdout)
    assert len(hashes) == 1


@BACKENDS
def test_a_token_depends_on_those_behind_it(backend: object) -> None:
    executor = compile_with(backend, 1)
    assert not np.array_equal(states(executor, [3, 4, 5])[0][0], states(executor, [3, 4, 6])[0][0])


@BACKENDS
def test_the_output_is_as_wide_as_the_states_and_ids_as_the_table(backend: object) -> None:
    executor = compile_with(backend, 1)
    assert (executor.vocab_size, executor.needs_whole_sequences) == (VOCAB, True)
    assert states(executor, [VOCAB - 1])[0].shape == (1, executor.output_width) == (1, 4 * HEAD_DIM)
    with pytest.raises(ValueError, match=f"outside the vocabulary of {VOCAB}"):
        states(executor, [2 * VOCAB])


@BACKENDS
def test_an_id_carries_the_type_of_its_token(backend: object) -> None:
    executor = compile_with(backend, 1)
    first, second = (states(executor, [3 + offset])[0] for offset in (0, VOCAB))
    types = make_source().raw("types").view(np.float32).reshape(3, -1)
    assert np.abs(first - second).max() > 0.1
    plain = reference.compile(make_plan(make_source(), types=False), make_source(), executor.options)  # type: ignore[arg-type]
    embedded = states(plain, [3])[0]  # attention of one token gives its value: all is linear
    weights = {name: make_source().raw(name).view(np.float32).reshape(WIDTH, WIDTH) for name in "vo"}
    for found, row in ((first, types[1]), (second, types[2])):
        expected = embedded + row + row @ weights["v"].T @ weights["o"].T
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@BACKENDS
def test_a_run_that_is_not_the_whole_sequence_is_refused(backend: object) -> None:
    executor, run = compile_with(backend, 1), Run([1, 2, 3], 0)
    executor.step(make_batch([(run, 2)]))
    with pytest.raises(ValueError, match="begins at position 0"):
        executor.step(make_batch([(run, 1)]))


@BACKENDS
def test_a_position_without_an_embedding_is_refused(backend: object) -> None:
    executor = compile_with(backend, 1)
    states(executor, [1] * POSITIONS)
    with pytest.raises(ValueError, match=f"position {POSITIONS}"):
        states(executor, [1] * (POSITIONS + 1))


def test_plans_refuse_what_has_no_meaning() -> None:
    plan = Plan(make_source().shapes)
    x = plan.embed("embd")
    heads = {"layer": 0, "num_heads": 4, "num_kv_heads": 4, "head_dim": HEAD_DIM, "scale": 1.0}
    with pytest.raises(UnsupportedError, match="a window"):
        plan.attention(x, x, x, window=4, causal=False, **heads)
    with pytest.raises(UnsupportedError, match="has 3 rows and is read from row 3"):
        plan.embed("types", index="type", first=FIRST + 1)
