"""How many threads are worth starting: physical cores that this process may use all the time."""

from __future__ import annotations

import os
from pathlib import Path

from torchless.memory import control_group_folders

__all__ = ["core_name", "cpu_quota", "physical_cores", "usable_cores"]


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores among the processors of the affinity mask, cut to the control groups' CPU quota.

    A second hardware thread of a core brings nothing to kernels that keep its units busy, and a thread
    beyond the quota only makes the others wait for it at the next barrier.

    Args:
        root: where ``/proc`` and ``/sys`` are looked for.
    """
    num_cores, quota = physical_cores(root), cpu_quota(root)
    return max(1, num_cores if quota is None else min(num_cores, int(quota)))


def physical_cores(root: Path = Path("/")) -> int:
    """Cores among the processors of the affinity mask; hardware threads of one core count once."""
    allowed = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return len({core_name(root, cpu) for cpu in allowed})


def core_name(root: Path, cpu: int) -> str:
    """A name that the hardware threads of one core share."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota of the control group and its parents, in processors; None without one."""
    found = []
    for folder in control_group_folders("cpu", root):
        fields = _words(folder / "cpu.max")  # version 2: "quota period", quota may be "max"
        if not fields:
            fields = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]) > 0:
            found.append(int(fields[0]) / int(fields[1]))
    return min(found, default=None)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
