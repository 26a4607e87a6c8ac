"""Plain reading of memory under the benchmark worker: what a decode step could reach at best."""

from __future__ import annotations

from typing import Any


class Engine:
    """Reads a buffer larger than the caches, with huge pages, on some threads."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from torchless import _core

        self._measure = _core.measure_read_bandwidth
        self._num_threads: int = settings["threads"]

    def measure(self, num_bytes: int) -> float:
        """Bytes per second."""
        return float(self._measure(self._num_threads, num_bytes))
