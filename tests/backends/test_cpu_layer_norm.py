"""Layer norms on the CPU: near the reference and the same bits in any batch, fused or not, on every level."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_norm_worker import compile_cpu, make_plan, make_source

from torchless.errors import UnsupportedError
from torchless.plan import Plan

core = pytest.importorskip("torchless._core")

WORKER = Path(__file__).with_name("layer_norm_worker.py")


@pytest.mark.parametrize("level", core.isa_levels())
def test_layer_norms_keep_the_promise(level: str) -> None:
    hashes = set()
    for fuse in ("0", "1"):
        environment = {
            **os.environ,
            "TORCHLESS_ISA": level,
            "TORCHLESS_FUSE": fuse,
            "PYTHONPATH": os.pathsep.join([str(WORKER.parent.parent), *sys.path]),
        }
        result = subprocess.run(
            [sys.executable, str(WORKER)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
        hashes.add(result.stdout)
    assert len(hashes) == 1


def test_readers_of_few_rows_make_the_norm_and_it_selects_rows_itself() -> None:
    stages = compile_cpu(make_source(), 1).lowered.stages  # type: ignore[attr-defined]
    assert [stage.kind for stage in stages] == [
        *("embed", "layer_norm", "matmul", "map", "matmul"),
        *("layer_norm", "layer_norm", "head"),
    ]
    assert [stage.args["shared"] for stage in stages if stage.kind == "layer_norm"] == [True, False, True]


def test_the_plan_names_a_norm_of_another_width() -> None:
    shapes = {**make_source().shapes, "a.bias": (71,)}
    plan = Plan(shapes)
    with pytest.raises(UnsupportedError, match=r"a\.bias has 71 elements, the norm's input 72"):
        plan.layer_norm(plan.embed("embd"), "a", bias="a.bias", eps=1e-5)


def test_the_listing_names_weight_bias_and_eps() -> None:
    line = next(line for line in str(make_plan(make_source())).splitlines() if "layer_norm" in line)
    assert line == "%1 (tokens, 72) = layer_norm %0, a, a.bias, eps=1e-05"
    assert np.array_equal(sorted(make_plan(make_source()).weight_names)[:2], ["a", "a.bias"])
