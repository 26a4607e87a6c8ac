"""Worker processes seen from the benchmark: start, call, and who used how much of the CPU meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ROUNDING_S = 3 * _TICK_S
"""What the rounding of several clocks to ticks can amount to: all there is to see in a very short call."""


class WorkerError(RuntimeError):
    """The engine raised, or its process died. The message says which."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU use during one call.

    Attributes:
        wall_s: duration of the call, seen from outside.
        idle_workers_cpu_s: CPU seconds of the benchmark's other workers, which should sleep.
        foreign_share: CPU used by everything else on the machine, as a share of the cores the call used.
    """

    wall_s: float
    idle_workers_cpu_s: float
    foreign_share: float


class Worker:
    """One engine in a process of its own. Use as a context manager.

    Args:
        name: shown in messages and reports.
        engine: file name under ``engines/``, without ``.py``.
        python: the interpreter that has the engine installed.
    """

    def __init__(self, name: str, engine: str, python: str = sys.executable) -> None:
        self.name = name
        script = Path(__file__).resolve().parent / "worker.py"
        self._process = subprocess.Popen(
            [python, str(script), engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the engine and returns its result.

        Raises:
            WorkerError: it raised there, or the process is gone.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # Then the answer is empty, and the status says why.
            self._process.stdin.write(json.dumps({"call": method, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: {_ending(self._process.wait())} in {method!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}\n{answer['traceback']}")
        return answer["result"]

    def cpu_s(self) -> float:
        """CPU seconds that the process has used so far, ended children included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) * _TICK_S

    def settle(self) -> None:
        """Waits until the process sleeps: thread pools spin for a while after their last task."""
        for _ in range(40):
            before = self.cpu_s()
            time.sleep(0.05)
            if self.cpu_s() == before:
                return

    def peak_bytes(self) -> int:
        """Most resident memory so far (VmHWM), shared file pages included."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise WorkerError(f"{self.name}: the system does not tell the peak memory of a process")

    def close(self) -> None:
        """Ends the process and waits for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # What a dead process did not read.
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def call_watched(worker: Worker, others: list[Worker], method: str, **arguments: Any) -> tuple[Any, Usage]:
    """Calls a worker and watches what the sleeping workers and the rest of the machine do meanwhile."""
    own, idle, machine = worker.cpu_s(), sum(w.cpu_s() for w in others), _machine_cpu_s()
    started = time.perf_counter()
    result = worker.call(method, **arguments)
    wall = time.perf_counter() - started
    worker.settle()
    own, idle = worker.cpu_s() - own, sum(w.cpu_s() for w in others) - idle
    foreign = _machine_cpu_s() - machine - own - idle - _ROUNDING_S
    return result, Usage(wall, idle, max(0.0, foreign) / max(own, wall, _TICK_S))


def _machine_cpu_s() -> float:
    """CPU seconds of all processes, and those that the hypervisor took away, since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def _ending(code: int) -> str:
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with status {code}"
