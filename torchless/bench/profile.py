"""Where a step's time goes: the executor's stages, timed from barrier to barrier, summed over the layers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchless import quants
from torchless.backends.cpu.lower import Stage
from torchless.bench.bench_model import BenchModel
from torchless.bench.cases import Case
from torchless.plan import Linear
from torchless.weights.source import WeightSource

__all__ = ["StageProfile", "StageTime", "profile_stages"]

_REPETITIONS = 3


@dataclass(slots=True)
class StageTime:
    """Stages of one kind in all layers.

    Attributes:
        label: what they compute, such as ``attn_q+attn_k+attn_v Q4_K``.
        seconds: of one token.
        share: of the step.
        weight_bytes: that they read in one step, as stored in the file.
        operations: of the products, per token (those of the output only once a prompt), two per multiply-add.
    """

    label: str
    seconds: float = 0.0
    share: float = 0.0
    weight_bytes: int = 0
    operations: float = 0.0


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One phase of one model: ``prefill`` or ``decode``, the slowest stages first.

    Attributes:
        depth: tokens of context before it.
    """

    model: str
    phase: str
    depth: int
    num_threads: int
    stages: tuple[StageTime, ...]


def profile_stages(model: BenchModel, name: str, case: Case) -> list[StageProfile]:
    """Times the stages of a case's prompt and of decoding after it; the fastest of some repetitions counts.

    The model must have been made with room for the case.
    """
    prompt_tokens, new_tokens = case.prompt_tokens, case.new_tokens
    best: dict[str, list[tuple[Stage | None, float]]] = {}
    for _ in range(_REPETITIONS):
        runs = model.open_runs(case)
        for phase, steps, count in (("prefill", 1, prompt_tokens), ("decode", new_tokens, 1)):
            model.executor.time_stages(True)
            for _ in range(steps):
                model.feed(runs, count)
            times = model.executor.stage_times()
            if phase not in best or _total(times) < _total(best[phase]):
                best[phase] = times
        model.close_runs(runs)
    model.executor.time_stages(False)
    num_threads = model.executor.options.num_threads
    counts = {"prefill": prompt_tokens, "decode": new_tokens}
    return [
        StageProfile(name, phase, case.depth, num_threads, _by_label(times, counts[phase], model, phase))
        for phase, times in best.items()
    ]


def _by_label(
    times: list[tuple[Stage | None, float]], num_tokens: int, model: BenchModel, phase: str
) -> tuple[StageTime, ...]:
    source, found = model.loaded.source, dict[str, StageTime]()
    products = {op.matrix: op for op in model.loaded.plan.ops if isinstance(op, Linear)}
    for stage, seconds in times:
        weights = [] if stage is None else [products[key] for key in _matrices(stage.args, products)]
        label = _label(stage, weights, source)
        entry = found.setdefault(label, StageTime(label))
        entry.seconds += seconds / num_tokens
        for op in weights:
            info, num_elements = source.tensors[op.weight], op.x.width * op.out.width
            entry.weight_bytes += info.num_bytes * num_elements // math.prod(info.shape)
            once = phase == "prefill" and op.out.rows == "outputs"
            entry.operations += 2 * num_elements / (num_tokens if once else 1)
    total = sum(entry.seconds for entry in found.values())
    for entry in found.values():
        entry.share = entry.seconds / total if total else 0.0
    return tuple(sorted(found.values(), key=lambda entry: -entry.seconds))


def _matrices(value: Any, products: Mapping[str, Linear]) -> list[str]:
    """Names of the matrices among a stage's arguments, whatever their arrangement."""
    if isinstance(value, str):
        return [value] if value in products else []
    if isinstance(value, dict):
        return [name for key, item in value.items() if key != "table" for name in _matrices(item, products)]
    if isinstance(value, (tuple, list)):
        return [name for item in value for name in _matrices(item, products)]
    return []


def _label(stage: Stage | None, weights: list[Linear], source: WeightSource) -> str:
    if stage is None:
        return "preparation"
    if not weights:
        return stage.kind
    short = [re.sub(r"^blk\.\d+\.|\.weight", "", op.matrix) for op in weights]
    types = dict.fromkeys(quants.by_name(source.tensors[op.weight].type).name for op in weights)
    return f"{'+'.join(short)} {'/'.join(types)}"


def _total(times: list[tuple[Stage | None, float]]) -> float:
    return sum(seconds for _, seconds in times)
