"""``torchless ps`` and the files behind it: private, current, and gone with their process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_executor import FakeExecutor
from id_reader import IdReader

from torchless import status
from torchless.cli.verbs.ps import command
from torchless.engine.engine import Engine
from torchless.engine.metering import Meter
from torchless.engine.runner import Runner
from torchless.status import StatusFile, running_models, status_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a user's runtime folder")


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "torchless"


@pytest.fixture
def running():
    """A runner whose model is announced."""
    executor = FakeExecutor()
    runner, meter = Runner(Engine(executor)), Meter()
    file = StatusFile("/models/story.gguf", lambda: 3 << 20, meter)
    runner.engine.observers += [meter, file]
    yield runner, file
    runner.close()
    file.close()


def test_a_loaded_model_is_listed_and_a_closed_one_is_not(running):
    _, file = running
    (found,) = running_models()
    assert (found.pid, found.model, found.memory_bytes) == (os.getpid(), "/models/story.gguf", 3 << 20)
    assert (found.num_running, found.num_waiting, found.tokens_per_second) == (0, 0, 0.0)
    file.close()
    assert running_models() == []


def test_only_the_user_can_look(running, runtime):
    assert runtime.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_open_or_that_is_a_link_is_not_used(tmp_path, runtime):
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    assert status_folder() is None and running_models() == []
    StatusFile("m", lambda: 0, Meter()).close()
    assert list(runtime.iterdir()) == []
    runtime.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    assert status_folder() is None


def test_a_working_model_says_so_at_most_once_a_second(running, monkeypatch):
    runner, file = running
    runner.engine.executor.waits = dict.fromkeys(range(1, 1000), 0.01)
    monkeypatch.setattr(status, "_INTERVAL_SECONDS", 0.2)
    writes, write, seen = [], file._write, []
    file._write = lambda *values: (writes.append(time.perf_counter()), write(*values))
    for _ in runner.run(IdReader([1], 100)):
        seen += running_models()
    assert any(found.num_running == 1 and found.tokens_per_second > 0 for found in seen)
    assert len(writes) >= 2
    assert min(b - a for a, b in itertools.pairwise(writes)) >= 0.2


def test_a_model_that_became_idle_between_two_writes_is_listed_as_idle(running, monkeypatch):
    runner, file = running
    file._written_at = -1e9  # the next occasion writes
    assert len(list(runner.run(IdReader([1], 20)))) == 20
    (found,) = running_models()
    assert (found.num_running, found.num_waiting) == (0, 0)
    assert any(json.loads(path.read_text())["num_waiting"] for path in status_folder().iterdir()), (
        "as written"
    )


DIES = """
import os, sys
sys.path[:0] = sys.argv[1:]
from torchless.engine.metering import Meter
from torchless.status import StatusFile, running_models
file = StatusFile("m", lambda: 0, Meter())
if os.fork() == 0:
    sys.exit(0)
os.wait()
assert len(running_models()) == 1, "the end of a fork removes nothing"
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_file_of_a_killed_process_is_removed_by_who_looks(runtime):
    command = [sys.executable, "-W", "ignore", "-c", DIES, str(Path(status.__file__).parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ready\n", done.stderr
    assert len(list(runtime.glob("*.json"))) == 1
    assert running_models() == []
    assert list(runtime.glob("*.json")) == []


def test_a_later_process_with_the_same_number_is_another(running, runtime):
    (path,) = runtime.glob("*.json")
    values = json.loads(path.read_text())
    if values["process_started"] == 0:
        pytest.skip("the system does not tell when a process began")
    path.write_text(json.dumps({**values, "process_started": values["process_started"] - 1}))
    assert running_models() == [] and not path.exists()


def test_what_is_not_a_status_is_left_alone(running, runtime):
    (runtime / "other.json").write_text("not json")
    assert len(running_models()) == 1
    assert (runtime / "other.json").exists()


def test_a_disk_that_cannot_be_written_stops_nothing(running, runtime):
    runner, file = running
    file._written_at = -1e9
    file._path = runtime / "gone" / "x.json"
    assert len(runner.finish(IdReader([1], 5)).token_ids) == 5


def test_the_verb_lists_models_as_a_table_and_as_json(running):
    table = CliRunner().invoke(command, [])
    assert table.exit_code == 0
    assert str(os.getpid()) in table.stdout and "story.gguf" in table.stdout and "3.0 MiB" in table.stdout
    rows = json.loads(CliRunner().invoke(command, ["-o", "json"]).stdout)
    assert rows[0]["model"] == "/models/story.gguf" and rows[0]["memory_bytes"] == 3 << 20


def test_the_verb_says_that_nothing_runs():
    done = CliRunner().invoke(command, [])
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(CliRunner().invoke(command, ["-o", "json"]).stdout) == []


def test_a_real_model_is_listed_while_it_is_loaded():
    torchless = pytest.importorskip("torchless")
    pytest.importorskip("torchless._core")
    with torchless.load() as model:
        (found,) = running_models()
        assert found.model.endswith(".gguf") and found.memory_bytes > 1 << 20
        assert found.memory_bytes >= model.info["memory_bytes"]["weights"]
    assert running_models() == []
