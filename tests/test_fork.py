"""A forked child may exit normally although the parent has a model with worker threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from torchless.bench.synthetic import write_synthetic

pytest.importorskip("torchless._core")

SCRIPT = """
import gc, os, sys
from executors import logits_of, open_executor
from pathlib import Path
executor = open_executor(Path(sys.argv[1]), threads=2)
logits_of(executor, [1, 2, 3], 3)
child = os.fork()
if child == 0:
    executor.close()
    gc.collect()
    sys.exit(7)
_, status = os.waitpid(child, 0)
logits_of(executor, [1, 2, 3], 3)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_child_of_a_process_with_worker_threads_exits(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "model.gguf", "test", "F32")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "model.gguf")],
        env={"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 7, result.stderr
