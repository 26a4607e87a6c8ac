"""What the command line shows of an engine at work: --metrics, --trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchless._core")

RUN = [sys.executable, "-m", "torchless", "run", "Once upon a time", "--max-tokens", "9", "--temp", "0"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *flags], capture_output=True, text=True, timeout=60)


def test_run_writes_metrics_and_a_trace(tmp_path: Path) -> None:
    done = run("--metrics", str(tmp_path / "m.prom"), "--trace", str(tmp_path / "t.json"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "m.prom").read_text(encoding="utf-8")
    assert 'torchless_generated_tokens_total{model="stories.gguf"} 9\n' in text
    events = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert sum(event["name"] == "step" for event in events) == 9


def test_metrics_go_to_stderr_for_a_dash() -> None:
    done = run("--metrics", "-")
    assert "torchless_steps_total" in done.stderr and "torchless_steps_total" not in done.stdout


@pytest.mark.parametrize("flag", ["--metrics", "--trace"])
def test_a_file_that_cannot_be_written_is_named(flag: str, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    done = run(flag, str(path))
    assert done.returncode != 0
    assert str(path) in done.stderr and "Traceback" not in done.stderr
