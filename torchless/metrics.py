"""Counters and histograms of a model's requests, and their text form for Prometheus.

The text form is Prometheus' exposition format 0.0.4, units and suffixes as its naming guide has them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

__all__ = ["SIZES", "TIMES", "Histogram", "Metrics", "Recorder", "prometheus_text"]

TIMES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of durations, in seconds."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
"""Upper bounds of the buckets of counts."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fell where.

    Attributes:
        bounds: upper bound of each bucket, included, ascending; a last bucket has no bound.
        counts: values in each bucket, one more than bounds.
        total: sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean value; 0.0 without any."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The bound of the bucket that holds the value below which `share` (0 to 1) of all lie; 0.0 without any.

        >>> Histogram((1.0, 2.0), (3, 1, 0), 5.0).quantile(0.5)
        1.0
        """
        wanted, seen = share * self.count, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return 0.0


class Recorder:
    """A histogram in the making. Written by one thread; others may take a snapshot at any time."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def snapshot(self, value: float = 0.0, times: int = 0) -> Histogram:
        """What was counted so far, and a value besides that was not counted yet."""
        counts = list(self.counts)
        counts[bisect_left(self.bounds, value)] += times
        return Histogram(self.bounds, tuple(counts), self.total + value * times)


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a model did since it was loaded, and what it does now. Made by `LLM.metrics`.

    Attributes:
        num_requests: sequences that were asked for: prompts, texts to embed, documents to judge.
        num_finished, num_cancelled: those that came to their end, and those that were given up or failed.
        num_prompt_tokens: prompt tokens of all requests that have begun.
        num_generated_tokens: tokens that were picked.
        num_drafted_tokens, num_kept_tokens: tokens that speculation computed ahead, and those that were right, of all
            requests that have ended.
        num_computed_tokens: token rows of all steps, whatever they were for.
        num_cached_tokens: tokens that sequences found in the prefix cache instead of computing them.
        num_restored_tokens: of those, the ones that were read from disk.
        num_steps: steps of the engine.
        num_preemptions: how often a sequence lost its pages to an older one.
        num_running, num_waiting: sequences now under way and in the queue.
        num_pages_in_use, num_pages_kept, num_pages: of the KV cache, now: owned by a sequence, kept without an owner in
            case that a prompt begins alike, and in all.
        queue_seconds: from the request to its first step.
        time_to_first_token_seconds: from the request to its first token.
        time_between_tokens_seconds: of one sequence; several tokens of one step share its time.
        step_seconds: duration of a step.
        batch_sequences, batch_tokens: sequences and token rows of a step.
    """

    num_requests: int
    num_finished: int
    num_cancelled: int
    num_prompt_tokens: int
    num_generated_tokens: int
    num_drafted_tokens: int
    num_kept_tokens: int
    num_computed_tokens: int
    num_cached_tokens: int
    num_restored_tokens: int
    num_steps: int
    num_preemptions: int
    num_running: int
    num_waiting: int
    num_pages_in_use: int
    num_pages_kept: int
    num_pages: int
    queue_seconds: Histogram
    time_to_first_token_seconds: Histogram
    time_between_tokens_seconds: Histogram
    step_seconds: Histogram
    batch_sequences: Histogram
    batch_tokens: Histogram

    def prometheus(self, **labels: str) -> str:
        """The text form, every sample with these labels.

        Example:
            print(model.metrics().prometheus(model="stories"))
        """
        return prometheus_text([(labels, self)])


# Field -> (name, help). A name that ends with _total is a counter, another a gauge or a histogram.
_SAMPLES = {
    "num_requests": ("requests_total", "Sequences that were asked for"),
    "num_finished": ("requests_finished_total", "Sequences that came to their end"),
    "num_cancelled": ("requests_cancelled_total", "Sequences that were given up or failed"),
    "num_prompt_tokens": ("prompt_tokens_total", "Prompt tokens of requests that have begun"),
    "num_generated_tokens": ("generated_tokens_total", "Tokens that were picked"),
    "num_drafted_tokens": ("drafted_tokens_total", "Tokens that speculation computed ahead"),
    "num_kept_tokens": ("drafted_tokens_kept_total", "Tokens computed ahead that were right"),
    "num_computed_tokens": ("computed_tokens_total", "Token rows of all steps"),
    "num_cached_tokens": ("cached_tokens_total", "Tokens found in the prefix cache instead of computed"),
    "num_restored_tokens": ("restored_tokens_total", "Tokens found in the prefix cache on disk"),
    "num_steps": ("steps_total", "Steps of the engine"),
    "num_preemptions": ("preemptions_total", "Sequences that lost their pages to an older one"),
    "num_running": ("sequences_running", "Sequences under way"),
    "num_waiting": ("sequences_waiting", "Sequences in the queue"),
    "num_pages_in_use": ("kv_pages_in_use", "Pages of the KV cache in use"),
    "num_pages_kept": ("kv_pages_kept", "Pages without an owner that the prefix cache keeps"),
    "num_pages": ("kv_pages", "Pages of the KV cache"),
    "queue_seconds": ("queue_seconds", "From the request to its first step"),
    "time_to_first_token_seconds": ("time_to_first_token_seconds", "From the request to its first token"),
    "time_between_tokens_seconds": ("time_between_tokens_seconds", "Between two tokens of one sequence"),
    "step_seconds": ("step_seconds", "Duration of a step"),
    "batch_sequences": ("batch_sequences", "Sequences of a step"),
    "batch_tokens": ("batch_tokens", "Token rows of a step"),
}


def prometheus_text(models: Iterable[tuple[Mapping[str, str], Metrics]]) -> str:
    """The text form of several models' metrics, told apart by their labels."""
    several = list(models)
    lines = []
    for item in fields(Metrics):
        name, description = _SAMPLES[item.name]
        name = f"torchless_{name}"
        is_histogram = item.type == "Histogram"
        kind = "histogram" if is_histogram else "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {description}.", f"# TYPE {name} {kind}"]
        for labels, metrics in several:
            value = getattr(metrics, item.name)
            lines += (
                _histogram_lines(name, labels, value)
                if is_histogram
                else [f"{name}{_label_text(labels)} {value}"]
            )
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: Mapping[str, str], histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
        seen += count
        end = "+Inf" if bound is None else f"{bound:g}"
        lines.append(f"{name}_bucket{_label_text({**labels, 'le': end})} {seen}")
    return [
        *lines,
        f"{name}_sum{_label_text(labels)} {histogram.total!r}",
        f"{name}_count{_label_text(labels)} {seen}",
    ]


def _label_text(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
