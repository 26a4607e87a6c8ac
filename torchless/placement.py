"""Which processor each thread keeps to, when asked: one per core, and on several memory nodes an even share of each."""

from __future__ import annotations

import os
import re
from pathlib import Path

from torchless.errors import InvalidRequestError
from torchless.processors import core_name

__all__ = ["memory_nodes", "thread_cpus"]


def thread_cpus(num_threads: int, *, pin: bool, numa: bool, root: Path = Path("/")) -> tuple[int, ...]:
    """The processor of each thread; empty to leave the threads to the system.

    Cores come before their second hardware threads. With `numa` on a machine with several memory nodes the
    threads are spread evenly over them, neighbours together: a thread's share of every matrix then lies in
    its own node's memory. On one node `numa` does nothing.

    Args:
        pin: every thread keeps to a processor.
        numa: the same, where there are several nodes.
        root: where ``/sys`` is looked for.

    Raises:
        InvalidRequestError: this system cannot tie threads to processors.
    """
    if not pin and not numa:
        return ()
    if not hasattr(os, "sched_getaffinity"):
        raise InvalidRequestError("pin and numa need Linux: this system does not tie threads to processors")
    nodes = memory_nodes(root)
    if len(nodes) < 2 and not pin:
        return ()
    if not numa:
        nodes = [[cpu for node in nodes for cpu in node]]
    shares = [_cores_first(node, root) for node in nodes]
    if not numa:
        return tuple(shares[0][i % len(shares[0])] for i in range(num_threads))
    chosen: list[int] = []
    for index, share in enumerate(shares):
        begin, end = (num_threads * (index + k) // len(shares) for k in (0, 1))
        chosen += [share[i % len(share)] for i in range(end - begin)]
    return tuple(chosen)


def memory_nodes(root: Path = Path("/")) -> list[list[int]]:
    """The processors of each memory node that this process may use, nodes without one left out."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    folders = (root / "sys/devices/system/node").glob("node*")
    numbered = sorted((int(f.name[4:]), f) for f in folders if f.name[4:].isdigit())
    found = [sorted(allowed & set(_cpu_list(folder / "cpulist"))) for _, folder in numbered]
    return [cpus for cpus in found if cpus] or [sorted(allowed)]


def _cores_first(cpus: list[int], root: Path) -> list[int]:
    """One hardware thread of each core, then the others."""
    seen: dict[str, int] = {}
    for cpu in cpus:
        seen.setdefault(core_name(root, cpu), cpu)
    first = list(seen.values())
    return first + [cpu for cpu in cpus if cpu not in first]


def _cpu_list(path: Path) -> list[int]:
    """The numbers of a list such as ``0-3,8,10-11``; empty when it cannot be read."""
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    cpus: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        if match:
            cpus += range(int(match[1]), int(match[2] or match[1]) + 1)
    return cpus
