"""Recurrent state on the CPU: a convolution and the gated delta rule, each sequence's state in a slot."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from executors import Run, logits_of, make_batch
from recurrent_worker import VOCAB, RandomSource, compile_cpu, make_plan

from torchless.backends import cpu, reference
from torchless.backends.base import Executor, ExecutorOptions
from torchless.errors import UnsupportedError
from torchless.plan import Piece, Plan

core = pytest.importorskip("torchless._core")


@pytest.mark.parametrize(
    ("level", "fuse"),
    [*((level, "1") for level in ("scalar", "avx2", "avxvnni", "avx512", "amx")), ("avx2", "0")],
)
def test_bits_are_the_same_for_any_chunk_and_batch_and_near_the_reference(level: str, fuse: str) -> None:
    if level not in core.isa_levels():
        pytest.skip(f"this machine has no {level}")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), *sys.path])
    result = subprocess.run(
        [sys.executable, str(here / "recurrent_worker.py")],
        env={**os.environ, "TORCHLESS_ISA": level, "TORCHLESS_FUSE": fuse, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


def test_the_states_are_counted() -> None:
    source = RandomSource("wide")
    plan, options = make_plan(source, is_tiled=True), ExecutorOptions(8, 64, 64, 2, num_state_slots=5)
    announced = cpu.required_bytes(plan, source, options)  # type: ignore[arg-type]
    executor = cpu.compile(plan, source, options)  # type: ignore[arg-type]
    assert executor.memory_bytes()["state"] == 0
    for slot in range(5):
        executor.step(make_batch([(Run([1, 2, 3], slot, slot), 3)]))
    used = executor.memory_bytes()
    assert announced["state"] == used["state"] > 5 * 4 * (6 * 32 * 72 + 3 * (2 * 2 * 32 + 6 * 72))
    assert used["scratch"] <= announced["scratch"] + 8192
    assert "state" not in cpu.required_bytes(*_without_state(), options)


def _without_state() -> tuple[Plan, RandomSource]:
    source = RandomSource("wide")
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    plan.set_output(plan.linear(plan.embed("embd"), "embd"))
    return plan, source


def _executors() -> list[Executor]:
    source = RandomSource("narrow")
    options = ExecutorOptions(64, 256, 256, 1, num_state_slots=3)
    plan = make_plan(source, is_tiled=True)
    return [compile_cpu(source, 1), reference.compile(plan, source, options)]  # type: ignore[arg-type,list-item]


def test_a_run_that_does_not_go_on_where_its_state_ended_is_refused() -> None:
    for executor in _executors():
        run = Run(list(range(20)), 0, slot=1)
        executor.step(make_batch([(run, 5)]))
        run.done = 4
        with pytest.raises(ValueError, match="begins at position 4, but the state in slot 1 goes on at 5"):
            executor.step(make_batch([(run, 1)]))
        run.done, run.slot = 5, 2
        with pytest.raises(ValueError, match="slot 2 goes on at -1"):
            executor.step(make_batch([(run, 1)]))
        run.done, run.slot = 5, 1  # nothing was lost
        executor.step(make_batch([(run, 1)]))


def test_slots_that_do_not_fit_the_batch_are_refused() -> None:
    for executor in _executors():
        for slots, message in (
            ([0], "each run needs a state slot"),
            ([0, 3], "state slot 3 is out of range"),
            ([0, -1], "state slot -1 is out of range"),
            ([1, 1], "state slot 1 is out of range or appears twice"),
        ):
            whole = make_batch([(Run([1, 2], i), 2) for i in range(2)])
            with pytest.raises(ValueError, match=message):
                executor.step(replace(whole, state_slots=np.array(slots, np.int32)))


def test_a_sequence_at_its_start_sees_nothing_of_the_slots_last() -> None:
    for executor in _executors():
        ids = [3, 1, 4, 1, 5]
        fresh = logits_of(executor, ids, 2)
        logits_of(executor, [VOCAB - 1] * 40, 40)
        np.testing.assert_array_equal(
            logits_of(executor, ids, 5 if executor.options.num_threads == 1 else 2), fresh
        )


def test_shapes_that_do_not_fit_are_refused() -> None:
    source = RandomSource("narrow")
    plan = Plan({name: info.shape for name, info in source.tensors.items()})
    x = plan.embed("embd")
    with pytest.raises(UnsupportedError, match="conv has 88 channels, its input 96"):
        plan.causal_conv(x, "conv")
    numbers, qkv = plan.linear(x, "ba"), plan.linear(x, "qkv")
    sizes = {"num_key_heads": 2, "num_heads": 4, "key_dim": 12, "value_dim": 10, "is_tiled": True}
    names = {"decay": "decay", "step_bias": "bias"}
    piece = Piece(numbers, 0, 4)
    with pytest.raises(UnsupportedError, match="heads are 88 wide, not 96"):
        plan.gated_delta(qkv, step=piece, beta=piece, **names, **{**sizes, "value_dim": 12})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="columns up to 10 of a value that is 8 wide"):
        plan.gated_delta(qkv, step=Piece(numbers, 6, 4), beta=piece, **names, **sizes)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="norm has 10 elements for 4 heads"):
        plan.gated_delta(qkv, step=piece, beta=piece, **{**names, "decay": "norm"}, **sizes)  # type: ignore[arg-type]
