"""Facts about the machine and the code that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_FLAGS = ("avx", "fma", "f16c", "amx", "asimd", "i8mm", "sve", "bf16")


def machine_facts() -> dict[str, Any]:
    """CPU, instruction sets, memory, huge pages, load and kernel of this machine."""
    cpu = _key_values(Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0])
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_id": {key: cpu[key] for key in ("vendor_id", "cpu family", "model", "stepping") if key in cpu},
        "instruction_sets": [flag for flag in flags if flag.startswith(_FLAGS)],
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "transparent_huge_pages": huge_pages.read_text().strip() if huge_pages.exists() else "absent",
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": _commit(),
    }


def physical_cores() -> int:
    """Cores that this process may run on, threads of one core counted once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return len(cores)


def _key_values(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _commit() -> str:
    """Commit of the repository that this file lies in, with ``-dirty`` when files were changed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
