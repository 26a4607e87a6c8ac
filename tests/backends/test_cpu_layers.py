"""Layers that differ: heads of other sizes, shared caches, values from keys, inputs and experts of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from layers_worker import write_layers

from torchless.errors import UnsupportedError
from torchless.plan import Piece, Plan

core = pytest.importorskip("torchless._core")

HEADS = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "scale": 1.0}


def run_worker(model: Path, level: str, **environment: str) -> str:
    here = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, str(here / "layers_worker.py"), str(model)],
        env={
            **os.environ,
            "TORCHLESS_ISA": level,
            "PYTHONPATH": os.pathsep.join([*sys.path, str(here), str(here.parent)]),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("level", ["scalar", "avx2", "avxvnni", "avx512", "amx"])
def test_every_level_keeps_the_promise_and_is_near_the_reference(level: str, tmp_path: Path) -> None:
    if level not in core.isa_levels():
        pytest.skip(f"this machine has no {level}")
    write_layers(tmp_path / "model.gguf")
    hashed = run_worker(tmp_path / "model.gguf", level)
    if level == core.isa():
        assert run_worker(tmp_path / "model.gguf", level, TORCHLESS_FUSE="0") == hashed


def test_no_more_memory_is_taken_than_announced(tmp_path: Path) -> None:
    from torchless.backends import cpu
    from torchless.backends.base import ExecutorOptions
    from torchless.models import record_plan
    from torchless.weights.open import open_source

    write_layers(tmp_path / "model.gguf")
    source = open_source(tmp_path / "model.gguf")
    plan, _ = record_plan(source)
    options = ExecutorOptions(64, 256, 8, 2)
    announced = cpu.required_bytes(plan, source, options)
    used = cpu.compile(plan, source, options).memory_bytes()
    assert used["scratch"] <= announced["scratch"] + 8192
    assert announced["kv"] == 64 * used["kv_page"]


def test_a_shared_cache_must_exist_and_fit() -> None:
    plan = Plan({"embd": (9, 32), "k": (16, 32)})
    q = plan.embed("embd")
    k = plan.linear(q, "k")
    with pytest.raises(UnsupportedError, match="no cache of layer 0"):
        plan.attention(q, None, None, layer=0, **HEADS)
    plan.attention(q, k, k, layer=0, **HEADS)
    plan.attention(q, None, None, layer=0, **HEADS)
    with pytest.raises(UnsupportedError, match="twice"):
        plan.attention(q, k, k, layer=0, **HEADS)
    with pytest.raises(UnsupportedError, match="1 key/value heads of 16"):
        plan.attention(q, None, None, layer=0, num_heads=2, num_kv_heads=1, head_dim=16, scale=1.0)


def test_columns_that_a_glu_multiplies_must_be_there() -> None:
    plan = Plan({"embd": (9, 32), "k": (16, 32)})
    x = plan.embed("embd")
    with pytest.raises(UnsupportedError, match="columns 20 to 36"):
        plan.glu(plan.linear(x, "k"), Piece(x, 20, 16), activation="silu")
