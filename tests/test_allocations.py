"""A decoded token makes no heap allocation in the C++ core."""

from __future__ import annotations

from pathlib import Path

import pytest
from executors import Run, make_batch, open_executor

from torchless.bench.synthetic import write_synthetic

core = pytest.importorskip("torchless._core")


@pytest.mark.parametrize("shape", ["test", "test-moe", "test-hybrid"])
@pytest.mark.parametrize("threads", [1, 2])
def test_decoding_allocates_nothing_after_warm_up(shape: str, threads: int, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", shape, "Q4_K_M")
    before = core.allocation_count()
    executor = open_executor(tmp_path / "model.gguf", threads=threads)
    assert core.allocation_count() > before + 50, "the counter does not count"
    run = Run([5] * 240, 0)
    executor.step(make_batch([(run, 30)]))
    executor.step(make_batch([(run, 1)]))
    before = core.allocation_count()
    for _ in range(200):  # crosses several pages
        executor.step(make_batch([(run, 1)]))
    assert core.allocation_count() == before
