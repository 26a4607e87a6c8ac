"""Counters of the server itself, beside those of its models, in Prometheus' text form."""

from __future__ import annotations

from collections import Counter

from torchless.metrics import TIMES, Recorder

__all__ = ["HttpMetrics"]


class HttpMetrics:
    """What came over HTTP. Touched by the event loop's thread alone.

    Attributes:
        num_open: calls that are under way.
    """

    def __init__(self) -> None:
        self.num_open = 0
        self._calls: Counter[tuple[str, int]] = Counter()
        self._seconds = Recorder(TIMES)

    def add(self, path: str, status: int, seconds: float) -> None:
        """Counts a call: its route (not its path, of which there may be any number), status and duration."""
        self._calls[path, status] += 1
        self._seconds.add(seconds)

    def prometheus(self) -> str:
        """The text form."""
        lines = [
            "# HELP torchless_http_requests_total Calls that have ended, by route and status.",
            "# TYPE torchless_http_requests_total counter",
        ]
        for (path, status), count in sorted(self._calls.items()):
            lines.append(f'torchless_http_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += [
            "# HELP torchless_http_requests_open Calls that are under way.",
            "# TYPE torchless_http_requests_open gauge",
            f"torchless_http_requests_open {self.num_open}",
            "# HELP torchless_http_request_seconds Duration of a call.",
            "# TYPE torchless_http_request_seconds histogram",
        ]
        histogram, seen = self._seconds.snapshot(), 0
        for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
            seen += count
            end = "+Inf" if bound is None else f"{bound:g}"
            lines.append(f'torchless_http_request_seconds_bucket{{le="{end}"}} {seen}')
        lines += [
            f"torchless_http_request_seconds_sum {histogram.total!r}",
            f"torchless_http_request_seconds_count {seen}",
        ]
        return "\n".join(lines) + "\n"
