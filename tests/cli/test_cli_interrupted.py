"""Ctrl-C while a model is quantised, converted or loaded: the process ends at once and no file is left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_processes import command, environment

from torchless.bench.synthetic import write_synthetic

pytest.importorskip("torchless._core")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes a second or two to quantise."""
    path = tmp_path_factory.mktemp("large") / "model.gguf"
    write_synthetic(path, "tinyllama-1.1b", "BF16", layers=1)
    return path


def interrupt(arguments: list[object], is_busy: Callable[[], bool]) -> tuple[int, str]:
    """Starts a command, interrupts it once it is busy; returns its status and what it said."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    deadline = time.monotonic() + 30
    while not is_busy() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, f"it ended before it was interrupted: {process.communicate()[0]}"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    return process.returncode, said


@pytest.mark.parametrize(
    "arguments",
    [("quantize", "out.gguf", "Q4_K_M"), ("convert", "out.gguf"), ("convert", "folder")],
    ids=["quantize", "gguf to gguf", "gguf to folder"],
)
def test_nothing_is_left_of_a_file_that_was_not_finished(
    arguments: tuple[str, ...], large: Path, tmp_path: Path
) -> None:
    verb, name, *rest = arguments
    status, said = interrupt([verb, large, tmp_path / name, *rest], lambda: any(tmp_path.rglob("*")))
    assert status == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.rglob("*")) == []


def test_a_load_that_quantises_ends_at_once(large: Path) -> None:
    begin = time.monotonic()
    status, said = interrupt(
        ["run", large, "Once", "-n", "4", "--quant", "Q2_K"], lambda: time.monotonic() > begin + 1.0
    )
    assert status == 130, said
    assert "Traceback" not in said


def test_an_importance_matrix_that_was_not_finished_leaves_nothing(large: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Once upon a time there was a cat. " * 2000)
    out = tmp_path / "imatrix.gguf"
    begin = time.monotonic()
    status, said = interrupt(
        ["imatrix", large, tmp_path / "text.txt", "-o", out], lambda: time.monotonic() > begin + 2.0
    )
    assert status == 130 and said == ""
    assert time.monotonic() - begin < 5
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
