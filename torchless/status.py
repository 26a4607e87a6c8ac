"""Which models run in this user's processes: a small file for each, in a folder that only the user can read.

A process writes its files itself, at most once a second and only while it works. Who reads them removes those of
processes that have gone.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchless.engine.engine import Engine, StepResult
    from torchless.engine.metering import Meter
    from torchless.engine.sequence import Sequence

__all__ = ["ModelStatus", "StatusFile", "running_models", "status_folder"]

_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model in a running process, as it was when it was last written down.

    Attributes:
        pid: of the process.
        process_started: when that began, in ticks since the system did, to know it from a later one with its number;
            0 where the system does not tell.
        model: path of the model.
        memory_bytes: weights, work space, cached keys and values, and recurrent state.
        num_running, num_waiting: sequences under way and in the queue.
        tokens_per_second: picked in the second before, all sequences together.
        loaded_at, written_at: seconds since 1970.
    """

    pid: int
    process_started: int
    model: str
    memory_bytes: int
    num_running: int
    num_waiting: int
    tokens_per_second: float
    loaded_at: float
    written_at: float


def status_folder() -> Path | None:
    """The folder of these files, made if need be; None where there can be none that is private."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(runtime) / "torchless" if runtime else Path(tempfile.gettempdir()) / f"torchless-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    if os.name == "posix" and (not folder.is_dir() or found.st_uid != user or found.st_mode & 0o077):
        return None  # somebody else made it, or may look into it
    return None if folder.is_symlink() else folder


def running_models() -> list[ModelStatus]:
    """The models of this user's running processes, oldest first. Files of processes that have gone are removed."""
    folder = status_folder()
    if folder is None:
        return []
    return sorted(_statuses(folder), key=lambda status: status.loaded_at)


class StatusFile:
    """An `Observer` that keeps a model's file up to date, and removes it when the model goes.

    Args:
        model: path of the model.
        memory_bytes: what it takes now, in bytes.
        meter: counts its tokens.
    """

    def __init__(self, model: str, memory_bytes: Callable[[], int], meter: Meter) -> None:
        self._model = model
        self._memory_bytes = memory_bytes
        self._meter = meter
        self._loaded_at = time.time()
        self._written_at = 0.0  # clock, in seconds
        self._num_tokens = 0
        self._pid = os.getpid()
        self._process_started = _start_of(self._pid)
        folder = status_folder()
        self._path = None if folder is None else folder / f"{self._pid}-{secrets.token_hex(4)}.json"
        self._remove = weakref.finalize(self, _remove, self._path, self._pid)
        self._write(0, 0, time.perf_counter())

    def added(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`. The step that follows may be a long one."""
        self._write_in_time(engine, time.perf_counter())

    def stepped(self, engine: Engine, result: StepResult) -> None:
        """See `Observer`."""
        now = result.times.booked
        if now - self._written_at >= _INTERVAL_SECONDS:
            self._write_in_time(engine, now)
        elif engine.scheduler.is_idle:
            self._mark_idle()

    def cancelled(self, engine: Engine, sequence: Sequence) -> None:
        """See `Observer`."""
        if engine.scheduler.is_idle:
            self._mark_idle()

    def close(self) -> None:
        """Removes the file."""
        self._remove()

    def _write_in_time(self, engine: Engine, now: float) -> None:
        if now - self._written_at >= _INTERVAL_SECONDS:
            scheduler = engine.scheduler
            self._write(len(scheduler.running), len(scheduler.waiting), now)

    def _write(self, num_running: int, num_waiting: int, now: float) -> None:
        if self._path is None:
            return
        num_tokens = self._meter.num_generated
        rate = (num_tokens - self._num_tokens) / max(now - self._written_at, _INTERVAL_SECONDS)
        self._num_tokens, self._written_at = num_tokens, now
        status = ModelStatus(
            pid=self._pid,
            process_started=self._process_started,
            model=self._model,
            memory_bytes=self._memory_bytes(),
            num_running=num_running,
            num_waiting=num_waiting,
            tokens_per_second=rate,
            loaded_at=self._loaded_at,
            written_at=time.time(),
        )
        beside = self._path.with_suffix(".new")
        try:
            beside.write_text(json.dumps(asdict(status)), encoding="utf-8")
            beside.replace(self._path)
        except OSError:  # a full or read-only disk is no reason to stop working
            self._path = None

    def _mark_idle(self) -> None:
        """Says that nothing runs any more without writing again so soon: a file from 1970 is that of an idle model."""
        if self._path is not None:
            try:
                os.utime(self._path, (0, 0))
            except OSError:
                self._path = None


def _remove(path: Path | None, pid: int) -> None:
    if path is not None and os.getpid() == pid:  # and not in a fork
        path.unlink(missing_ok=True)


def _statuses(folder: Path) -> Iterator[ModelStatus]:
    for path in folder.glob("*.json"):
        try:
            status = ModelStatus(**json.loads(path.read_text(encoding="utf-8")))
            is_idle = path.stat().st_mtime == 0
        except (OSError, ValueError, TypeError):  # gone meanwhile, or not ours
            continue
        if not _is_alive(status):
            path.unlink(missing_ok=True)
            continue
        if is_idle:
            values = {**asdict(status), "num_running": 0, "num_waiting": 0, "tokens_per_second": 0.0}
            status = ModelStatus(**values)
        yield status


def _is_alive(status: ModelStatus) -> bool:
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return _start_of(status.pid) == status.process_started


def _start_of(pid: int) -> int:
    """When a process began, in ticks since the system did (field 22 of proc_pid_stat(5)); 0 where that is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text[text.rindex(")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
