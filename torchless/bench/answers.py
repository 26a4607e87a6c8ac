"""Latency and memory of whole answers, measured in fresh processes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from torchless.bench.bench_model import BenchModel
from torchless.bench.cases import Case
from torchless.bench.fresh_process import Job, run_job
from torchless.bench.machine import Roofs
from torchless.bench.rows import Row, roof_fields
from torchless.bench.work import Work

__all__ = ["Answers", "measure_answers"]


class Answers:
    """What fresh processes reported about one pair of prompt and answer lengths.

    Attributes:
        starts: reports of processes that ended at their first token.
        report: of the process that answered several times.
    """

    def __init__(self, case: Case, starts: list[dict[str, Any]], report: dict[str, Any]) -> None:
        self.case, self.starts, self.report = case, starts, report

    def row(self, kind: str, model: BenchModel, common: Row, roofs: Roofs) -> Row:
        """The row of kind ``latency`` or ``memory``; its speed is that of decoding, sampling and text included."""
        case, report = self.case, self.report
        decode_s = report["decode_s"]
        decoded = max(case.new_tokens - 1, 1)
        speeds = [decoded / seconds for seconds in decode_s]
        row = {
            **common,
            "kind": kind,
            "test": case.name,
            "n_prompt": case.prompt_tokens,
            "n_gen": case.new_tokens,
            "n_depth": 0,
            "n_sequences": 1,
            "is_shared": False,
            "avg_ts": statistics.fmean(speeds),
            "stddev_ts": statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
            "median_ts": statistics.median(speeds),
            "samples_ts": speeds,
            **roof_fields(_decode_work(case, model), statistics.median(decode_s), roofs),
            "cpu_utilisation": report["cpu_utilisation"],
            "logits_hash": report["logits_hash"],
            "is_repeatable": True,
        }
        return {**row, **(self._latency() if kind == "latency" else self._memory(model))}

    def _latency(self) -> Row:
        first = [seconds * 1e3 for seconds in self.report["first_token_s"]]
        following = [seconds * 1e3 for seconds in self.report["next_token_s"]]
        return {
            "first_token_ms_p50": _quantile(first, 0.5),
            "first_token_ms_p95": _quantile(first, 0.95),
            "next_token_ms_p50": _quantile(following, 0.5),
            "next_token_ms_p95": _quantile(following, 0.95),
            **{
                f"cold_{name}_ms_p50": 1e3 * statistics.median(start[f"{name}_s"] for start in self.starts)
                for name in ("import", "load", "start")
            },
        }

    def _memory(self, model: BenchModel) -> Row:
        report, kv = self.report, model.work.kv_bytes_per_token
        file_bytes = model.loaded.describe()["file_bytes"]
        return {
            "peak_bytes": report["peak_bytes"],
            "loaded_bytes": report["loaded_bytes"],
            "peak_ratio": report["peak_bytes"] / (file_bytes + kv * self.case.length),
            "kv_bytes_per_token": kv,
            "allocations_per_token": report["allocations_per_token"],
            "page_faults_per_token": report["page_faults_per_token"],
            "load_page_faults": report["load_page_faults"],
        }


def measure_answers(
    model: str,
    load: dict[str, Any],
    cases: Sequence[Case],
    repetitions: int,
    progress: Callable[[str], None],
    *,
    num_starts: int,
) -> list[Answers]:
    """Starts processes for every case.

    Args:
        load: keywords of `torchless.load`; ``ctx`` is chosen here.
        num_starts: processes that end at their first token, for the time of a cold start.
    """
    results = []
    for case in cases:
        job = Job(model, {**load, "ctx": case.length + 1}, case.prompt_tokens, case.new_tokens, 0)
        starts = []
        for number in range(num_starts):
            progress(f"cold start {number + 1} of {num_starts}: {case.name}")
            starts.append(run_job(job))
        progress(f"answers of a fresh process: {case.name}")
        report = run_job(Job(job.model, job.load, job.prompt_tokens, job.new_tokens, repetitions))
        results.append(Answers(case, starts or [report], report))
    return results


def _decode_work(case: Case, model: BenchModel) -> Work:
    """Of all tokens but the first, which belongs to the prompt."""
    total = Work()
    for i in range(max(case.new_tokens - 1, 1)):
        step = model.work.step([(case.prompt_tokens + i, 1)], 1)
        total.read_bytes += step.read_bytes
        for kind, operations in step.operations.items():
            total.add(kind, operations)
    return total


def _quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed, by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
