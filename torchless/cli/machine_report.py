"""What this machine offers and what torchless found in its own folders."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from torchless import __version__
from torchless.cli.discovery import backend_names, names_in
from torchless.kv_types import KV_TYPES
from torchless.memory import available_memory, format_bytes
from torchless.processors import usable_cores

__all__ = ["machine_report", "report_blocks"]


def machine_report() -> dict[str, dict[str, Any]]:
    """Everything, as plain values by topic."""
    return {
        "torchless": {
            "version": __version__,
            "path": str(Path(__file__).resolve().parent.parent),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "executable": sys.executable,
        },
        "machine": {
            "platform": platform.platform(),
            "cpu": _cpu_name(),
            "logical_cpus": os.cpu_count(),
            "usable_cores": usable_cores(),
            **_instruction_sets(),
        },
        "memory": _memory(),
        "found": {
            "backends": backend_names(),
            "models": _architectures(),
            "formats": _formats(),
            "kv_types": list(KV_TYPES),
            "sampling_steps": names_in("sampling/steps"),
            "drafters": names_in("engine/drafters"),
            "verbs": names_in("cli/verbs"),
            "server_routes": names_in("server/routes"),
            "tool_parsers": names_in("server/tool_parsers"),
        },
        "built_in_model": _built_in_model(),
    }


def report_blocks(report: dict[str, dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The report as titled lists of names and values, for people."""
    memory, model = report["memory"], report["built_in_model"]
    sizes = {name: format_bytes(value) for name, value in memory.items() if isinstance(value, int)}
    size = "" if model["bytes"] is None else f" ({format_bytes(model['bytes'])})"
    shown = {**report, "memory": {**memory, **sizes}, "built_in_model": {"path": model["path"] + size}}
    return [
        (topic.replace("_", " "), [(name.replace("_", " "), _text(value)) for name, value in values.items()])
        for topic, values in shown.items()
    ]


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _cpu_name() -> str | None:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Hardware", "Processor")):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def _instruction_sets() -> dict[str, Any]:
    """What the C++ core chose; why there is none where it cannot be used."""
    try:
        from torchless import _core

        return {"instruction_set": _core.isa(), "instruction_sets": list(_core.isa_levels())}
    except (ImportError, RuntimeError) as error:
        return {"instruction_set": f"none, the C++ core cannot be used: {error}"}


def _memory() -> dict[str, Any]:
    available = available_memory()
    return {
        "total": _total_memory(),
        "available": None if available is None else available.num_bytes,
        "limited_by": None if available is None else available.limit,
        "huge_pages": _chosen(_read("/sys/kernel/mm/transparent_hugepage/enabled")),
    }


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _chosen(setting: str) -> str | None:
    """The word in brackets: ``always [madvise] never`` -> ``madvise``."""
    return setting.partition("[")[2].partition("]")[0] or None


def _architectures() -> list[str]:
    from torchless.models import families

    return sorted(families())


def _formats() -> list[str]:
    from torchless.quants import all_formats

    return list(all_formats())


def _built_in_model() -> dict[str, Any]:
    from torchless.loading import BUILT_IN_MODEL

    found = BUILT_IN_MODEL.exists()
    return {
        "path": str(BUILT_IN_MODEL) if found else f"missing: {BUILT_IN_MODEL}",
        "bytes": BUILT_IN_MODEL.stat().st_size if found else None,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
