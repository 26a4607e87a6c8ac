"""The bench: what it runs, what it counts, what it prints."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torchless
from torchless.bench.bench_model import BenchModel, hash_logits
from torchless.bench.cases import Case, batch_cases, generation_cases
from torchless.bench.comparison import compare_rows
from torchless.bench.generation import measure
from torchless.bench.machine import Roofs, measure_roofs
from torchless.bench.profile import profile_stages
from torchless.bench.rows import common_fields, generation_row, load_rows, save_rows
from torchless.bench.synthetic import write_synthetic
from torchless.bench.tables import as_csv, as_json, as_markdown, markdown_table, profile_table
from torchless.bench.work import ModelWork
from torchless.errors import InvalidRequestError

core = pytest.importorskip("torchless._core")

LOAD = {"threads": 2, "kv": "f16", "backend": "cpu", "batch_tokens": 64}
ROOFS = Roofs(2, 10e9, {"int8": 1000e9, "bf16": 100e9, "f32": 200e9})


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bench") / "test.gguf"
    write_synthetic(path, "test", "Q4_K_M")
    return str(path)


# -- cases ---------------------------------------------------------------------------------------------


def test_cases_have_llama_benchs_names_and_order() -> None:
    cases = generation_cases([512], [128, 0], [(64, 8)], [0, 4096])
    assert [case.name for case in cases] == [
        *("pp512", "tg128", "pp64+tg8"),
        *("pp512 @ d4096", "tg128 @ d4096", "pp64+tg8 @ d4096"),
    ]


def test_batches_come_with_own_and_shared_contexts() -> None:
    names = [case.name for case in batch_cases([1, 8], [32], [64])]
    assert names == ["tg32 @ d64", "tg32 x 8 @ d64", "tg32 x 8 @ d64 shared"]
    assert not any(case.is_shared for case in batch_cases([1, 8], [32], [0]))
    with pytest.raises(InvalidRequestError, match="-n is 0"):
        batch_cases([1], [0], [64])


# -- work ----------------------------------------------------------------------------------------------


def test_work_of_a_step_counts_every_visible_key() -> None:
    work = ModelWork(1000, 64.0, {"int8": 10}, {"bf16": 3}, ((8, None, 0.5), (8, 4, 0.5)))
    step = work.step([(0, 6), (9, 1)], 2)
    seen = sum(p + 1 for p in [*range(6), 9])
    in_window = sum(min(p + 1, 4) for p in [*range(6), 9])
    assert step.operations == {"attention": 4 * 8 * (seen + in_window), "int8": 70, "bf16": 6}
    assert step.read_bytes == 1000 + 32 * (6 + 10) + 32 * (6 + 5)


def test_work_of_a_model_is_that_of_its_matrices(model_path: str) -> None:
    with BenchModel(model_path, LOAD, [Case(8, 0)]) as model:
        tensors = model.loaded.source.tensors
        inner = sum(
            2 * np.prod(t.shape) for t in tensors.values() if t.name.startswith("blk.") and len(t.shape) == 2
        )
        assert model.work.token_operations == {"int8": inner}
        assert model.work.output_operations == {"int8": 2 * np.prod(tensors["token_embd.weight"].shape)}
        assert model.work.kv_bytes_per_token == 2 * 2 * 2 * 64 * 2  # K and V, layers, heads, width, bytes


def test_roofs_are_measured_and_plausible() -> None:
    roofs = measure_roofs(1, 8 << 20)
    assert roofs.read_bytes_per_second > 1e8
    assert all(1e8 < peak < 1e14 for peak in roofs.operations_per_second.values())
    assert core.measure_dot_peak("int8", 1) > 1e8
    with pytest.raises(ValueError, match="kind must be int8, bf16 or f32, got int4"):
        core.measure_dot_peak("int4", 1)


# -- running -------------------------------------------------------------------------------------------


def test_a_case_computes_what_the_model_does(model_path: str) -> None:
    """Depths that are no whole pages, chunks smaller than the prompt, several sequences: always the same logits."""
    case, batch = Case(70, 5, 45), Case(70, 5, 45, 3)
    with BenchModel(model_path, LOAD, [case, batch]) as model:
        runs = model.open_runs(batch)
        model.feed(runs, 70)
        for _ in range(5):
            logits = model.feed(runs, 1).copy()
        ids = [run.token_ids.tolist() for run in runs]
        model.close_runs(runs)
        measurements, _ = measure(model, [case, batch], 2, roofs_of=lambda num_threads: ROOFS)
    assert [len(line) for line in ids] == [120] * 3
    assert ids[0] != ids[1]
    with torchless.load(model_path, threads=1) as llm:
        expected = [llm.logits(line)[-1] for line in ids]
    np.testing.assert_array_equal(logits, expected)
    assert measurements[1].hashes == [hash_logits(logits)] * 2
    assert measurements[0].hashes == [hash_logits(logits[:1])] * 2


def test_shared_contexts_hold_the_same_tokens_in_the_same_pages(model_path: str) -> None:
    case = Case(0, 4, 70, 3, is_shared=True)
    with BenchModel(model_path, LOAD, [case]) as model:
        runs = model.open_runs(case)
        assert len({tuple(run.token_ids[:70]) for run in runs}) == 1
        assert len({tuple(run.token_ids) for run in runs}) == 3
        assert all((run.pages[:2] == runs[0].pages[:2]).all() for run in runs)
        assert len({int(run.pages[2]) for run in runs}) == 3


def test_more_sequences_than_outputs_are_refused(model_path: str) -> None:
    with pytest.raises(InvalidRequestError, match="-b 1000 is more than the"):
        BenchModel(model_path, LOAD, [Case(0, 1, 0, 1000)])


def test_stages_are_timed_only_when_asked(model_path: str) -> None:
    with BenchModel(model_path, LOAD, [Case(40, 4)]) as model:
        assert model.executor.stage_times() == []
        profiles = profile_stages(model, "m", Case(40, 4))
        assert model.executor.stage_times() == []
    assert [profile.phase for profile in profiles] == ["prefill", "decode"]
    for profile in profiles:
        labels = [stage.label for stage in profile.stages]
        assert "attention" in labels
        assert any(label.startswith("ffn_gate+ffn_up Q4_K") for label in labels)
        assert sum(stage.share for stage in profile.stages) == pytest.approx(1)
        assert "ffn_gate+ffn_up" in profile_table(profile)
    decode = profiles[1]
    matrices = sum(stage.weight_bytes for stage in decode.stages)
    with BenchModel(model_path, LOAD, [Case(1, 0)]) as model:
        tensors = model.loaded.source.tensors.values()
        assert matrices == sum(t.num_bytes for t in tensors if len(t.shape) == 2)


# -- rows ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(model_path: str) -> list[dict[str, Any]]:
    cases = [Case(40, 0), Case(0, 4), Case(0, 4, 32, 2)]
    with BenchModel(model_path, LOAD, cases) as model:
        measurements, _ = measure(model, cases, 3, roofs_of=lambda num_threads: ROOFS)
        common = common_fields(model.loaded, "test Q4_K_M")
    kinds = ["generation", "generation", "batch"]
    return [generation_row(kind, m, common, ROOFS) for kind, m in zip(kinds, measurements, strict=True)]


def test_rows_have_llama_benchs_fields_and_ours(rows: list[dict[str, Any]]) -> None:
    row = rows[0]
    theirs = (
        "build_commit cpu_info model_filename model_type model_size model_n_params n_threads type_k type_v "
    )
    theirs += "n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts"
    assert set(theirs.split()) <= set(row)
    assert (row["n_prompt"], row["n_gen"], row["n_depth"], len(row["samples_ts"])) == (40, 0, 0, 3)
    seconds = np.median(row["samples_ns"]) / 1e9
    assert row["read_share"] == pytest.approx(row["read_bytes"] / 10e9 / seconds)
    attention = row["operations_by_kind"]["attention"] / 200e9
    assert row["compute_share"] == pytest.approx(
        (row["operations_by_kind"]["int8"] / 1000e9 + attention) / seconds
    )
    assert row["is_repeatable"]


def test_rows_as_text_keep_every_figure(rows: list[dict[str, Any]]) -> None:
    assert json.loads(as_json(rows)) == rows
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [float(row["avg_ts"]) for row in table] == [row["avg_ts"] for row in rows]
    text = as_markdown(rows)
    assert "| pp40 " in text and "| tg4 x 2 @ d32 " in text and rows[0]["logits_hash"] in text
    unstable = [{**rows[0], "is_repeatable": False}]
    assert "DIFFER" in as_markdown(unstable)


def test_markdown_columns_are_aligned() -> None:
    lines = markdown_table(["a", "bb"], [["x", "1"], ["long", "200"]]).splitlines()
    assert lines == ["| a    |  bb |", "|------|----:|", "| x    |   1 |", "| long | 200 |"]


def test_saved_rows_come_back(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    save_rows(str(tmp_path / "base.json"), rows)
    assert load_rows(str(tmp_path / "base.json")) == rows
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "missing.json"):
        with pytest.raises(InvalidRequestError, match=f"{name}.*--save"):
            load_rows(str(tmp_path / name))


def test_comparison_matches_cases_and_marks_noise(rows: list[dict[str, Any]]) -> None:
    before = [{**row, "avg_ts": 100.0, "stddev_ts": 1.0, "samples_ts": [1.0] * 4} for row in rows]
    after = [
        {**before[0], "avg_ts": 125.0},
        {**before[1], "avg_ts": 100.5, "logits_hash": "other"},
        {**before[2], "n_sequences": 9, "test": "tg4 x 9"},
    ]
    text = compare_rows(before, after)
    lines = text.splitlines()
    assert " 1.250 x |" in lines[2] and " same |" in lines[2]
    assert " ~1.005 x |" in lines[3] and " changed |" in lines[3]
    assert "Only before: tg4 x 2 @ d32 of test Q4_K_M." in text
    assert "Only after: tg4 x 9 of test Q4_K_M." in text
    assert "Geometric mean of the ratios: 1.121 x." in text
