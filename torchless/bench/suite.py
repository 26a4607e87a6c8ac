"""A whole bench: models, thread counts and kinds of tests, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchless.bench.answers import Answers, measure_answers
from torchless.bench.bench_model import BenchModel
from torchless.bench.cases import Case, batch_cases, generation_cases
from torchless.bench.generation import measure
from torchless.bench.profile import StageProfile, profile_stages
from torchless.bench.rows import Row, common_fields, generation_row
from torchless.errors import InvalidRequestError

__all__ = ["KINDS", "Suite", "SuiteResult", "run_suite"]

KINDS = ("generation", "latency", "memory", "batch")

_PROFILED_PROMPT, _PROFILED_NEW = 256, 16


@dataclass(frozen=True, slots=True)
class Suite:
    """What to run on every model.

    Attributes:
        kinds: some of `KINDS`.
        prompts, news, pairs, depths: of generation; `pairs` are prompts with decodings in one test.
        batch_depths: tokens that each sequence of a batch has before it.
        batches: numbers of sequences.
        threads: thread counts, None for automatic.
        load: other keywords of `torchless.load`.
        with_profile: also measure how long each stage takes.
    """

    kinds: Sequence[str]
    prompts: Sequence[int]
    news: Sequence[int]
    pairs: Sequence[tuple[int, int]]
    depths: Sequence[int]
    batch_depths: Sequence[int]
    batches: Sequence[int]
    threads: Sequence[int | None]
    repetitions: int
    load: dict[str, Any]
    seed: int = 0
    with_profile: bool = False


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Rows of all tests, and profiles by model and thread count."""

    rows: list[Row]
    profiles: list[StageProfile]


def run_suite(
    models: Sequence[tuple[str, str]], suite: Suite, progress: Callable[[str], None] = lambda text: None
) -> SuiteResult:
    """Runs the suite on models given as (path, name for the rows).

    Raises:
        InvalidRequestError: there is nothing to do.
        TorchlessError: a model cannot be loaded.
    """
    rows: list[Row] = []
    profiles: list[StageProfile] = []
    for path, name in models:
        for threads in suite.threads:
            load = {**suite.load, "threads": threads or "auto"}
            rows += _run_one(path, name, suite, load, profiles, progress)
    return SuiteResult(rows, profiles)


def _run_one(
    path: str,
    name: str,
    suite: Suite,
    load: dict[str, Any],
    profiles: list[StageProfile],
    progress: Callable[[str], None],
) -> list[Row]:
    """One model with one number of threads."""
    timed: list[tuple[str, Case]] = []
    if "generation" in suite.kinds:
        cases = generation_cases(suite.prompts, suite.news, suite.pairs, suite.depths)
        timed += [("generation", case) for case in cases]
    if "batch" in suite.kinds:
        timed += [("batch", case) for case in batch_cases(suite.batches, suite.news, suite.batch_depths)]
    answer_kinds = [kind for kind in ("latency", "memory") if kind in suite.kinds]
    answers = _measure_answers(path, suite, load, answer_kinds, progress)
    if not timed and not answers:
        raise InvalidRequestError("there is nothing to measure: -p, -n and -pg are all 0")
    cases = [case for _, case in timed] or [answers[0].case]
    profiled = [Case(_PROFILED_PROMPT, _PROFILED_NEW, depth) for depth in sorted({0, max(suite.depths)})]
    if suite.with_profile:
        cases += profiled
    progress(f"loading {Path(path).name}")
    with BenchModel(path, load, cases, seed=suite.seed) as model:
        common = common_fields(model.loaded, name)
        measurements, roofs = measure(model, [case for _, case in timed], suite.repetitions, progress)
        rows = [
            generation_row(kind, measured, common, roofs)
            for (kind, _), measured in zip(timed, measurements, strict=True)
        ]
        rows += [answer.row(kind, model, common, roofs) for kind in answer_kinds for answer in answers]
        if suite.with_profile:
            for case in profiled:
                progress(f"timing the stages of {case.name}")
                profiles += profile_stages(model, name, case)
    return rows


def _measure_answers(
    path: str, suite: Suite, load: dict[str, Any], kinds: Sequence[str], progress: Callable[[str], None]
) -> list[Answers]:
    """Before the model is loaded here, so that it is never in memory twice."""
    if not kinds:
        return []
    cases = [
        Case(prompt, max(new, 2))  # without a second token there is nothing between tokens
        for prompt in suite.prompts or (1,)
        for new in suite.news or (2,)
    ]
    num_starts = suite.repetitions if "latency" in kinds else 0
    return measure_answers(
        path, load, list(dict.fromkeys(cases)), suite.repetitions, progress, num_starts=num_starts
    )
