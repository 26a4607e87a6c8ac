"""The best logits of each row, found without writing the rows: those that a sort of all would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from executors import Run, make_batch, open_executor

from torchless.bench.synthetic import write_synthetic

core = pytest.importorskip("torchless._core")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("best") / "model.gguf"
    write_synthetic(path, "test", "Q4_K_M")
    return path


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 3, 9, 64])
def test_best_are_those_of_a_stable_sort(num_rows: int, threads: int, backend: str, model: Path) -> None:
    executor = open_executor(model, backend, threads=threads)
    ids = np.random.default_rng(num_rows).integers(0, executor.vocab_size, num_rows).tolist()
    logits = executor.step(make_batch([(Run(ids, 0), num_rows)])).copy()
    order = (-logits).argsort(axis=1, kind="stable")
    for count in (1, 2, 40, min(64, executor.max_best(num_rows))):
        best = executor.step_best(make_batch([(Run(ids, 0), num_rows)]), count)
        assert np.array_equal(best.ids, order[:, :count])
        assert np.array_equal(best.logits, np.take_along_axis(logits, order[:, :count], axis=1))


def test_more_rows_or_places_than_there_is_room_for_are_refused(model: Path) -> None:
    executor = open_executor(model)
    assert executor.max_best(64) == 64 and executor.max_best(65) == 0
    for num_rows, count in ((1, 65), (65, 1), (1, 0)):
        with pytest.raises(ValueError, match="best"):
            executor.step_best(make_batch([(Run([5] * num_rows, 0), num_rows)]), count)


def test_without_fusion_there_are_none(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_FUSE", "0")
    assert open_executor(model).max_best(1) == 0
