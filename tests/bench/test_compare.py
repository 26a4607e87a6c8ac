"""The benchmark's own arithmetic and its worker processes."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from compare_peers import Round, Test, arguments_of, chosen_contestants, chosen_tests, parse_options  # noqa: E402
from report import as_markdown, summarize  # noqa: E402
from table import markdown, rows_of  # noqa: E402
from workers import Worker, WorkerError, call_watched  # noqa: E402

Test.__test__ = False  # type: ignore[attr-defined]  # A dataclass, no test of pytest's.


def _rounds(*speeds: tuple[float, float, float], foreign: tuple[float, ...] = ()) -> list[Round]:
    names = ("torchless", "llama-default", "llama-plain")
    return [
        Round({("tg32", name): s for name, s in zip(names, row, strict=True)}, None, share)
        for row, share in zip(speeds, foreign or (0.0,) * len(speeds), strict=True)
    ]


def test_ratio_is_the_median_within_rounds_against_the_better_setting() -> None:
    # The machine slows down threefold from round to round; within each round we are twice as fast.
    rounds = _rounds((20, 10, 5), (60, 30, 16), (200, 100, 51))
    summary = summarize(["tg32"], rounds, disturbed=0.1)
    assert summary["ratios"]["tg32"]["against"] == "llama-default"
    assert summary["ratios"]["tg32"]["median"] == summary["ratios"]["tg32"]["min"] == 2
    assert summary["tests"]["tg32"]["llama-plain"]["median"] == 16


def test_disturbed_rounds_are_left_out_while_three_calm_ones_remain() -> None:
    rounds = _rounds((10, 10, 1), (1, 10, 1), (10, 10, 1), (10, 10, 1), foreign=(0, 0.9, 0, 0))
    assert summarize(["tg32"], rounds, disturbed=0.1)["ratios"]["tg32"]["min"] == 1
    few = summarize(["tg32"], rounds[:3], disturbed=0.1)
    assert few["rounds"] == few["rounds"] | {"run": 3, "undisturbed": 2, "used": 3}
    assert few["ratios"]["tg32"]["min"] == 0.1


def test_there_is_no_ratio_without_a_peer() -> None:
    rounds = [Round({("tg32", "torchless"): 5.0})] * 3
    assert summarize(["tg32"], rounds, disturbed=0.1)["ratios"] == {"tg32": None}


def test_report_shows_ratio_failures_and_a_warning_on_a_busy_machine() -> None:
    machine = {"cpu": "X", "cpus": 2, "instruction_sets": ["avx2"], "commit": "abc"}
    ours = {"error": None, "facts": {"version": "1"}, "loads_s": [1.0]}
    ours |= {"loaded_bytes": 5e6, "peak_bytes": 6e6, "kv_bytes": 1e6}
    theirs = {"error": "llama-default: the process died of SIGSEGV in 'measure'"}
    results = {
        "machine": machine,
        "options": {"model": "m.gguf", "t": 2, "kv": "f16"},
        "file_bytes": 4e6,
        "contestants": {"torchless": ours, "llama-default": theirs},
        "end_to_end": [],
        "logits_difference": {"llama-plain": 0.02},
        **summarize(["tg32"], _rounds((20, 10, 5), foreign=(0.5,)), disturbed=0.1),
    }
    text = as_markdown(results)
    assert "| test | torchless, tok/s | llama-default, tok/s | llama-plain, tok/s |" in text
    assert (
        "| tg32 | 20.00 (20.00 .. 20.00) | 10.00 (10.00 .. 10.00) | 5.00 (5.00 .. 5.00) | **2.00 x** ("
        in text
    )
    assert "FAILED: llama-default: the process died of SIGSEGV" in text
    assert "WARNING: the machine was busy" in text
    assert "| torchless | 1.00 (1.00 .. 1.00) | 5 | 6 | 1 | 1.20 |" in text


def test_both_engines_get_the_same_tokens() -> None:
    test = Test("tg4", num_tokens=4, batch=1, depth=3)
    first, again = arguments_of(test, 0, 1000), arguments_of(test, 0, 1000)
    assert first == again
    assert (len(first["depth_ids"]), len(first["token_ids"]), first["batch"]) == (3, 4, 1)
    assert max(first["token_ids"]) < 1000


def test_worker_reports_what_failed_and_goes_on() -> None:
    with Worker("w", "no_such_engine") as worker:
        for _ in range(2):
            with pytest.raises(WorkerError, match="w: ModuleNotFoundError"):
                worker.call("start", settings={})


def test_dead_worker_is_told_from_a_failing_call() -> None:
    with Worker("w", "no_such_engine") as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="w: the process died of SIGKILL in 'start'"):
            worker.call("start", settings={})


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="CPU use is read from Linux's /proc")
def test_cpu_use_of_others_is_seen() -> None:
    class Idle:
        def cpu_s(self) -> float:
            return 0.0

        def settle(self) -> None:
            pass

        def call(self, method: str) -> str:
            spin = "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"
            subprocess.run([sys.executable, "-c", spin], check=True)
            return method

    result, usage = call_watched(Idle(), [Idle()], "x")  # type: ignore[arg-type, list-item]
    assert result == "x"
    assert usage.wall_s > 0.5
    assert usage.foreign_share > 0.3
    assert usage.idle_workers_cpu_s == 0


def _options(monkeypatch: pytest.MonkeyPatch, model: Path, *arguments: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["compare_peers", str(model), *arguments])
    return parse_options()


def test_tests_are_all_prompts_and_decodings_at_all_depths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").touch()
    options = _options(monkeypatch, tmp_path / "m.gguf", "-p", "64,128", "-n", "8", "-d", "0,256")
    names = [test.name for test in chosen_tests(options)]
    assert names == ["pp64", "pp128", "tg8", "pp64 @ d256", "pp128 @ d256", "tg8 @ d256"]
    with pytest.raises(SystemExit):
        _options(monkeypatch, tmp_path / "m.gguf", "-p", "0", "-n", "0")


_FAKE_LLAMA_BENCH = """#!{python}
import json, sys
words = sys.argv[1:]
flags = dict(zip(words[::2], words[1::2]))
assert flags["-o"] == "json" and flags["-ctk"] == "bf16" and flags["--extra"] == "x", flags
if "-d" in flags and int(flags["-d"]) > 99:
    sys.exit("no such depth")
row = {{"n_prompt": int(flags["-p"]), "n_gen": int(flags["-n"]), "avg_ts": 50.0, "build_commit": "abc"}}
print(json.dumps([row]))
"""


def test_any_llama_bench_binary_takes_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    binary = tmp_path / "llama-bench"
    binary.write_text(_FAKE_LLAMA_BENCH.format(python=sys.executable))
    binary.chmod(0o755)
    options = _options(monkeypatch, tmp_path / "m.gguf", "--llama-bench", f"{binary} --extra x")
    engine, settings = chosen_contestants(options)["llama-bench"]
    settings |= {"model": options.model, "threads": 1, "batch": 512, "kv": "bf16", "context": 512}
    with Worker("llama-bench", engine) as worker:
        worker.call("start", settings=settings)
        assert worker.call("facts")["version"] == "llama-bench abc"
        for batch in (1, 512):
            assert worker.call("measure", depth_ids=[], token_ids=[0] * 20, batch=batch) == 20 / 50
        with pytest.raises(WorkerError, match="status 1: no such depth"):
            worker.call("measure", depth_ids=[0] * 100, token_ids=[0] * 20, batch=512)


def test_a_table_takes_ratios_and_shares_within_rounds() -> None:
    spread = {"torchless": [20.0, 60.0, 200.0], "llama-default": [10.0, 30.0, 100.0]}
    results = {
        "options": {"model": "models/tiny-Q8_0.gguf"},
        "file_bytes": 100,
        "read_bytes_per_second": {"values": [4000.0, 12000.0, 40000.0]},
        "tests": {
            "tg32": {name: {"values": values, "median": values[1]} for name, values in spread.items()},
            "tg32 @ d512": {"torchless": {"values": [1.0], "median": 1.0}},
        },
    }
    assert rows_of(results) == [
        ("tiny-Q8_0", "tg32", "60.0", "2.00 x (2.00 .. 2.00)", "-", "50%"),
        ("tiny-Q8_0", "tg32 @ d512", "1.0", "-", "-", "-"),
    ]
    assert markdown(rows_of(results)).count("\n") == 3
