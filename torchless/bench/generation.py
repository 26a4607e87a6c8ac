"""Prefill and decoding, timed at the executor: cases take turns, so that a slow minute hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torchless.bench.bench_model import BenchModel, hash_logits
from torchless.bench.cases import Case
from torchless.bench.machine import Roofs, measure_roofs
from torchless.bench.work import Work

__all__ = ["Measurement", "measure"]

_WARM_UP_TOKENS = 16


@dataclass(slots=True)
class Measurement:
    """What the repetitions of one case took.

    Attributes:
        seconds, cpu_seconds: of each repetition; CPU time is that of all threads.
        work: of one repetition.
        hashes: of the last logits, one a repetition.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    hashes: list[str] = field(default_factory=list)


def measure(
    model: BenchModel,
    cases: Sequence[Case],
    repetitions: int,
    progress: Callable[[str], None] = lambda text: None,
    roofs_of: Callable[[int], Roofs] = measure_roofs,
) -> tuple[list[Measurement], Roofs]:
    """Runs every case `repetitions` times, in turn, after a short warm-up.

    The machine's roofs are measured once more in every round: the best that it showed is what counts.
    """
    measurements = [Measurement(case) for case in cases]
    for case in cases:
        progress(f"warming up {case.name}")
        _run(model, case, Measurement(case), _WARM_UP_TOKENS)
    num_threads = model.executor.options.num_threads
    roofs = roofs_of(num_threads)
    for repetition in range(repetitions):
        for measurement in measurements:
            progress(f"round {repetition + 1} of {repetitions}: {measurement.case.name}")
            _run(model, measurement.case, measurement)
        roofs = roofs.better(roofs_of(num_threads))
    return measurements, roofs


def _run(model: BenchModel, case: Case, into: Measurement, most: int | None = None) -> None:
    """Runs a case once, its prompt and its decoding cut to `most` tokens."""
    prompt, new = (
        count if most is None else min(count, most) for count in (case.prompt_tokens, case.new_tokens)
    )
    runs = model.open_runs(case)
    work = Work()
    started, cpu_started = time.perf_counter(), time.process_time()
    if prompt:
        logits = model.feed(runs, prompt, work)
    for _ in range(new):
        logits = model.feed(runs, 1, work)
    into.seconds.append(time.perf_counter() - started)
    into.cpu_seconds.append(time.process_time() - cpu_started)
    into.work = work
    into.hashes.append(hash_logits(logits))
    model.close_runs(runs)
