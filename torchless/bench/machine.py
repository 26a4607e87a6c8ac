"""The machine under the bench: what it is, and what it can do at best, measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from torchless.bench.work import ATTENTION, Work

__all__ = ["Roofs", "commit_of", "cpu_name", "measure_roofs"]

_BYTES_READ = 512 << 20


@dataclass(frozen=True, slots=True)
class Roofs:
    """What `num_threads` threads can do together.

    Attributes:
        read_bytes_per_second: reading memory and doing nothing with it.
        operations_per_second: dot products in registers, two operations per multiply-add, by ``int8``, ``bf16`` and
            ``f32``.
    """

    num_threads: int
    read_bytes_per_second: float
    operations_per_second: dict[str, float]

    def read_seconds(self, work: Work) -> float:
        """Time that reading alone would take."""
        return work.read_bytes / self.read_bytes_per_second

    def compute_seconds(self, work: Work) -> float:
        """Time that the operations alone would take. Attention may use the faster of the float products."""
        peaks = self.operations_per_second
        floats = max(peaks["bf16"], peaks["f32"])
        return sum(
            count / (floats if kind == ATTENTION else peaks[kind]) for kind, count in work.operations.items()
        )

    def better(self, other: Roofs) -> Roofs:
        """The larger of both measurements: disturbances only ever make a machine look slower."""
        mine, theirs = self.operations_per_second, other.operations_per_second
        return Roofs(
            self.num_threads,
            max(self.read_bytes_per_second, other.read_bytes_per_second),
            {kind: max(mine[kind], theirs[kind]) for kind in mine},
        )


def measure_roofs(num_threads: int, num_bytes: int = _BYTES_READ) -> Roofs:
    """Measures both roofs; takes some tenths of a second.

    Args:
        num_bytes: memory to read: much more than the caches hold, at most an eighth of what is free.
    """
    from torchless.backends.cpu.extension import load_extension
    from torchless.memory import available_memory

    core = load_extension()
    available = available_memory()
    if available is not None:
        num_bytes = min(num_bytes, available.num_bytes // 8)
    peaks = {kind: float(core.measure_dot_peak(kind, num_threads)) for kind in ("int8", "bf16", "f32")}
    return Roofs(num_threads, float(core.measure_read_bandwidth(num_threads, num_bytes)), peaks)


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name as the system tells it."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware"))]
    return names[0] if names else platform.processor() or platform.machine()


def commit_of(folder: Path = Path(__file__).parent) -> str:
    """The commit that this code is at, with ``-dirty`` where files were changed; ``unknown`` outside a repository."""
    if not (folder.parent.parent / ".git").exists():
        return "unknown"  # installed: the repository around it, if any, is somebody else's
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load_average() -> float | None:
    """Processes that wanted to run in the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
