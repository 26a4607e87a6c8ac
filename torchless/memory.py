"""How much memory this process may still take: what is free, and what control groups and ulimit allow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Available", "available_memory", "format_bytes"]


class Available(NamedTuple):
    """Memory that can be taken, and the limit that says so (for messages)."""

    num_bytes: int
    limit: str


def available_memory(root: Path = Path("/")) -> Available | None:
    """The least of all limits, or None where the system tells none (then nothing can be checked).

    Counted are: memory free or easily freed (``MemAvailable``; elsewhere than on Linux all physical
    memory), the memory limits of this process's control group and its parents (version 1 and 2; cached
    file pages count as free, since the kernel drops them first), and the address space and data limits
    of ``ulimit``.

    Args:
        root: where ``/proc`` and ``/sys`` are looked for.
    """
    found = [*_system(root), *_control_groups(root), *_resource_limits(root)]
    return min(found, default=None)


def format_bytes(num_bytes: int) -> str:
    """Human-readable size: ``1.5 GiB``."""
    size = float(num_bytes)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.1f} {units[0]}"


def _system(root: Path) -> Iterator[Available]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield Available(int(line.split()[1]) * 1024, "free memory of this machine")
            return
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if total > 0:
        yield Available(total, "memory of this machine")


def _resource_limits(root: Path) -> Iterator[Available]:
    try:
        import resource
    except ImportError:  # Windows
        return
    sizes = dict(line.split(":", 1) for line in _lines(root / "proc/self/status") if ":" in line)
    for name, limit, used in (
        ("address space (ulimit -v)", resource.RLIMIT_AS, "VmSize"),
        ("data (ulimit -d)", resource.RLIMIT_DATA, "VmData"),
    ):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            taken = int(sizes.get(used, "0 kB").split()[0]) * 1024
            yield Available(max(soft - taken, 0), f"limit on {name}")


# -- control groups -------------------------------------------------------------------------------


def _control_groups(root: Path) -> Iterator[Available]:
    for folder in control_group_folders("memory", root):
        is_v2 = (folder / "memory.max").exists()
        limit = _number(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        usage = _number(folder / ("memory.current" if is_v2 else "memory.usage_in_bytes"))
        if limit is None or usage is None or limit >= 1 << 60:  # version 1 writes "no limit" as 2**63 - 4096
            continue
        stat = dict(line.split() for line in _lines(folder / "memory.stat") if line.count(" ") == 1)
        prefix = "" if is_v2 or "total_inactive_file" not in stat else "total_"
        cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        free = max(limit - max(usage - cached, 0), 0)
        yield Available(free, f"memory limit of the control group ({format_bytes(limit)})")


def control_group_folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of this process's control group for `controller` and of its parents, innermost first.

    A container may see its own group as the root of the mount, or mounted from elsewhere in the tree:
    ``mountinfo`` says which part of the tree a mount shows, and paths outside it are read as its top.
    """
    for mount, shown, is_v2, controllers in _mounts(root):
        if not is_v2 and controller not in controllers:
            continue
        path = _group_path(root, controller, is_v2)
        if path is None:
            continue
        is_shown = ".." not in path and (path + "/").startswith(shown.rstrip("/") + "/")
        inside = path.removeprefix(shown).strip("/") if is_shown else ""
        top = root / mount.lstrip("/")
        folder = top / inside
        while folder != top:
            if folder.is_dir():
                yield folder
            folder = folder.parent
        if top.is_dir():
            yield top


def _mounts(root: Path) -> Iterator[tuple[str, str, bool, set[str]]]:
    """Control group mounts: mount point, the part of the tree it shows, is it version 2, its controllers."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if separator and len(fields) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            yield fields[4], fields[3], kind[0] == "cgroup2", set(kind[2].split(","))


def _group_path(root: Path, controller: str, is_v2: bool) -> str | None:
    """This process's group, from ``/proc/self/cgroup``: lines ``id:controllers:path``, id 0 is version 2."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) if is_v2 else (controller in controllers.split(",")):
            return path
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None where it is missing or says ``max``."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    """The lines of a file of ``/proc`` or ``/sys``; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
