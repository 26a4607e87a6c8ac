"""`torchless bench` and `doctor`, on the built-in model and on tiny synthetic ones."""

from __future__ import annotations

import csv
import io
import json

import pytest

pytest.importorskip("torchless._core")

TINY = ("--synthetic", "test:Q4_0", "-r", "1")


@pytest.fixture(autouse=True)
def quick_roofs(monkeypatch):
    from torchless.bench import diagnosis, generation, machine

    def measure(num_threads):
        return machine.Roofs(num_threads, 1e10 * num_threads, {"int8": 1e12, "bf16": 2e11, "f32": 1e11})

    monkeypatch.setattr(diagnosis, "measure_roofs", measure)
    monkeypatch.setattr(generation.measure, "__defaults__", (*generation.measure.__defaults__[:-1], measure))


def test_the_default_is_llama_benchs_on_the_built_in_model(cli):
    status, out, err = cli("bench", "-r", "1")
    assert (status, err) == (0, "")
    assert "stories (built in)" in out
    assert [line.split("|")[1].strip() for line in out.splitlines() if "%" in line] == ["pp512", "tg128"]


def test_json_is_a_list_of_rows_like_llama_benchs(cli):
    status, out, _ = cli(
        "bench", *TINY, "-p", "8,16", "-n", "2", "-pg", "8,2", "-d", "0,40", "-t", "1,2", "-o", "json"
    )
    rows = json.loads(out)
    assert status == 0
    expected = ["pp8", "pp16", "tg2", "pp8+tg2"]
    expected += [f"{name} @ d40" for name in expected]
    assert [row["test"] for row in rows] == expected * 2
    assert [row["n_threads"] for row in rows] == [1] * 8 + [2] * 8
    # The promise: the number of threads changes no bit.
    assert [row["logits_hash"] for row in rows[:8]] == [row["logits_hash"] for row in rows[8:]]
    assert all(row["avg_ts"] > 0 and row["model_type"] == "test Q4_0" for row in rows)


def test_latency_memory_and_batches(cli):
    status, out, _ = cli("bench", *TINY, "--kind", "all", "-p", "40", "-n", "4", "-b", "1,3", "-o", "csv")
    assert status == 0
    rows = {(row["kind"], row["test"]): row for row in csv.DictReader(io.StringIO(out))}
    assert [*rows] == [
        *(("generation", "pp40"), ("generation", "tg4"), ("batch", "tg4 @ d40")),
        *(("batch", "tg4 x 3 @ d40"), ("batch", "tg4 x 3 @ d40 shared")),
        *(("latency", "pp40+tg4"), ("memory", "pp40+tg4")),
    ]
    latency, memory = rows["latency", "pp40+tg4"], rows["memory", "pp40+tg4"]
    assert 0 < float(latency["first_token_ms_p50"]) <= float(latency["first_token_ms_p95"])
    assert 0 < float(latency["next_token_ms_p50"]) <= float(latency["next_token_ms_p95"])
    starts = [float(latency[f"cold_{name}_ms_p50"]) for name in ("import", "load", "start")]
    assert starts[0] > 0 and starts[1] > 0 and sum(starts[:2]) < starts[2]
    assert float(memory["allocations_per_token"]) == 0
    assert float(memory["kv_bytes_per_token"]) == 1024
    assert float(memory["peak_bytes"]) >= float(memory["loaded_bytes"]) > 1e6


def test_save_compare_report_and_profile(cli, tmp_path):
    base, page = tmp_path / "base.json", tmp_path / "page.html"
    arguments = ("bench", *TINY, "-p", "8", "-n", "2")
    assert cli(*arguments, "--save", base)[0] == 0
    status, out, err = cli(*arguments, "--compare", base, "--report", page, "--profile")
    assert (status, err) == (0, "")
    assert "Geometric mean of the ratios:" in out and " same |" in out
    assert "**test Q4_0**, decode" in out and "ffn_gate+ffn_up Q4_0" in out
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--synthetic", "test"], "--synthetic 'test' names no recipe, expected such as test:Q4_K_M"),
        (["--synthetic", "llama-9:Q4_0"], "unknown model shape 'llama-9'; known shapes: "),
        (["--synthetic", "test:Q99"], "unknown recipe 'Q99'"),
        (["--kind", "speed"], "--kind 'speed' is unknown, expected some of generation, "),
        (["-p", "12,x"], "'12,x' is not a list of whole numbers from 0 on"),
        (["-pg", "12"], "-pg takes two numbers"),
        (["-p", "0", "-n", "0"], "there is nothing to measure"),
        (["--profile", "-o", "json"], "--compare and --profile print tables, which -o json has no place for"),
        (["--compare", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_mistakes_are_explained(cli, arguments, sentence):
    status, out, err = cli("bench", *arguments)
    assert status in (1, 2) and out == ""
    assert sentence in err.replace("\n", " ")


def test_doctor_describes_the_machine(cli):
    status, out, err = cli("doctor")
    assert (status, err) == (0, "")
    for word in (
        "processor",
        "kernels",
        "CPU quota",
        "huge pages",
        "memory left",
        "reads",
        "int8 dots",
        "limit",
    ):
        assert f"  {word}" in out
    assert "decoding" not in out.split("in a sentence")[0]


def test_doctor_predicts_a_models_speed(cli):
    from torchless.loading import BUILT_IN_MODEL

    status, out, _ = cli("doctor", BUILT_IN_MODEL, "--json")
    report = json.loads(out)
    model, roofs = report["forecast"], report["roofs"]
    assert status == 0
    most = roofs["read_bytes_per_second"] / model["weight_bytes"]
    assert model["decode_tokens_per_second"] == pytest.approx(most, rel=0.05)
    assert model["long_decode_tokens_per_second"] < model["decode_tokens_per_second"]
    assert report["advice"]
    assert "decoding" in cli("doctor", BUILT_IN_MODEL)[1]


def test_weights_in_the_file_and_quantising_at_load_are_measured_too(cli):
    def row(*options):
        status, out, err = cli("bench", *options, "-r", "1", "-p", "8", "-n", "0", "-o", "json")
        assert status == 0, err
        return json.loads(out)[0]

    loaded, lazy = row(*TINY), row(*TINY, "--lazy")
    assert (loaded["lazy"], lazy["lazy"]) == ("off", "all")
    assert loaded["logits_hash"] == lazy["logits_hash"]
    assert lazy["read_bytes"] > loaded["read_bytes"] / 2  # what stays in the file is read all the same
    quantised = row("--synthetic", "test:BF16", "--quant", "Q4_0")
    assert "Q4_0" in quantised["tensor_types"]
    status, out, _ = cli("bench", *TINY, "--lazy", "-p", "8", "-n", "0")
    assert status == 0 and "weights in the file: all" in out
