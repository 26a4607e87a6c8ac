"""Fusion on the CPU: the same bits as without it, and few meetings of the threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from executors import Run, make_batch, open_executor

from torchless.bench.synthetic import write_synthetic
from torchless.weights.open import open_source

core = pytest.importorskip("torchless._core")

WORKER = Path(__file__).parent.parent / "promise_worker.py"


def hash_of_logits(model: Path, level: str, fuse: str) -> str:
    """Of a sequence in several chunkings; the worker fails if they differ among themselves."""
    result = subprocess.run(
        [sys.executable, str(WORKER), str(model), "f16", "40"],
        env={**os.environ, "TORCHLESS_ISA": level, "TORCHLESS_FUSE": fuse},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("level", core.isa_levels())
@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q8_0", "Q5_0", "BF16", "F32"])
def test_fusion_does_not_change_a_bit(recipe: str, level: str, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", "test", recipe)
    hashes = {hash_of_logits(tmp_path / "model.gguf", level, fuse) for fuse in ("0", "1")}
    assert len(hashes) == 1


def test_fusion_does_not_change_a_bit_of_a_trained_model(shared_data: Callable[[str], Path]) -> None:
    model = shared_data("stories260K/stories260K-Q8_0.gguf")
    assert hash_of_logits(model, core.isa(), "0") == hash_of_logits(model, core.isa(), "1")


@pytest.mark.parametrize("num_sequences", [1, 4])
@pytest.mark.parametrize("depth", [40, 700])
def test_a_layer_of_decode_takes_at_most_six_barriers(depth: int, num_sequences: int, tmp_path: Path) -> None:
    """Five in short contexts; six where attention's ranges are shared out, which keeps RoPE a stage of its own."""
    write_synthetic(tmp_path / "model.gguf", "test", "Q4_K_M")
    num_layers = open_source(tmp_path / "model.gguf").metadata["llama.block_count"]
    executor = open_executor(tmp_path / "model.gguf", threads=2)
    runs = [Run([5] * 800, 30 * i) for i in range(num_sequences)]
    for run in runs:
        while run.done < depth:
            executor.step(make_batch([(run, min(200, depth - run.done))]))
    executor.step(make_batch([(run, 1) for run in runs]))
    per_layer = 5 if depth < 512 else 6
    assert executor._core.num_barriers == 2 + per_layer * num_layers  # type: ignore[attr-defined]


def test_without_fusion_every_stage_has_its_barrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    write_synthetic(tmp_path / "model.gguf", "test", "Q4_K_M")
    executor = open_executor(tmp_path / "model.gguf", threads=2)
    executor.step(make_batch([(Run([5] * 9, 0), 3)]))
    clear_and_rope_tables = 2
    assert executor._core.num_barriers == len(executor.lowered.stages) + clear_and_rope_tables  # type: ignore[attr-defined]
