"""What this machine can do for a model, and what limits it: measured roofs, predicted speeds, one sentence."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchless.bench.machine import Roofs, cpu_name, measure_roofs
from torchless.bench.work import ModelWork, count_work, dot_kinds
from torchless.memory import Available, available_memory, format_bytes
from torchless.processors import cpu_quota, physical_cores, usable_cores

__all__ = ["Diagnosis", "Forecast", "Machine", "diagnose", "forecast"]

_BUSY = 0.15  # share of the processors that others may use before it is worth a word
_LONG_CONTEXT = 4096
_PREFILL_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found.

    Attributes:
        level, levels: kernels in use, and all that this processor can run.
        logical_cpus, allowed_cpus, physical_cores: of the machine, of the affinity mask, cores among the latter.
        quota: processors' worth of time that the control group grants, or None.
        threads: that torchless takes by default for a large model.
        huge_pages: the system's setting for transparent huge pages, or None.
        busy: share of the allowed processors that other processes used just now, or None.
    """

    cpu: str
    level: str
    levels: tuple[str, ...]
    logical_cpus: int
    allowed_cpus: int
    physical_cores: int
    quota: float | None
    threads: int
    huge_pages: str | None
    busy: float | None
    memory: Available | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a model could reach here: the roofs divided by its work. Real speeds are somewhat below.

    Attributes:
        needed_bytes: weights, work space and a context of `_LONG_CONTEXT` tokens, or of the model's length.
        decode_tokens_per_second, long_decode_tokens_per_second: with an empty and with a long context.
        prefill_tokens_per_second: of a prompt of `_PREFILL_TOKENS` tokens.
    """

    model: str
    weight_bytes: int
    kv_bytes_per_token: float
    needed_bytes: int
    decode_tokens_per_second: float
    long_context: int
    long_decode_tokens_per_second: float
    prefill_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything on the page; `advice` is its sentence."""

    machine: Machine
    roofs: Roofs
    one_thread: Roofs
    forecast: Forecast | None
    advice: str


def diagnose(model: str | None) -> Diagnosis:
    """Measures this machine, and reads the model's plan if one is named; weights are not loaded.

    Raises:
        TorchlessError: the model cannot be opened or is not supported.
    """
    found = _find_machine()
    one, roofs = measure_roofs(1), measure_roofs(found.threads)
    prediction = None if model is None else forecast(model, roofs)
    return Diagnosis(found, roofs, one, prediction, advise(found, one, roofs, prediction))


def forecast(model: str, roofs: Roofs) -> Forecast:
    """What the roofs allow for a model. Raises TorchlessError."""
    from torchless.backends import cpu
    from torchless.backends.base import ExecutorOptions
    from torchless.models import record_plan
    from torchless.weights.open import open_source

    source = open_source(model)
    try:
        plan, config = record_plan(source)
        page = cpu.required_bytes(plan, source, ExecutorOptions(1, _PREFILL_TOKENS, 8, roofs.num_threads))
        work = count_work(plan, source, dot_kinds(), page["weights"], page["kv"])
        context = min(_LONG_CONTEXT, config.context_length)
        return Forecast(
            model=str(source.path),
            weight_bytes=work.step([(0, 1)], 1).read_bytes - round(work.kv_bytes_per_token),
            kv_bytes_per_token=work.kv_bytes_per_token,
            needed_bytes=page["weights"] + page["scratch"] + round(work.kv_bytes_per_token * context),
            decode_tokens_per_second=1 / _step_seconds(work, roofs, 0, 1),
            long_context=context,
            long_decode_tokens_per_second=1 / _step_seconds(work, roofs, context - 1, 1),
            prefill_tokens_per_second=_PREFILL_TOKENS / _step_seconds(work, roofs, 0, _PREFILL_TOKENS),
        )
    finally:
        source.close()


def advise(machine: Machine, one: Roofs, roofs: Roofs, model: Forecast | None) -> str:
    """One sentence: what limits speed here, and what to do about it. The first that applies, worst first."""
    if model is not None and machine.memory is not None and model.needed_bytes > machine.memory.num_bytes:
        return (
            f"Memory is too small: the model needs {format_bytes(model.needed_bytes)}, but "
            f"{format_bytes(machine.memory.num_bytes)} are left ({machine.memory.limit}); take a smaller quantisation "
            f"or free memory."
        )
    if machine.level != machine.levels[-1]:
        return (
            f"The kernels run at level {machine.level} although this processor can run {machine.levels[-1]}; unset "
            f"TORCHLESS_ISA."
        )
    if machine.busy is not None and machine.busy > _BUSY:
        return (
            f"Other processes use {machine.busy:.0%} of the processors; stop them before trusting any speed measured "
            f"here."
        )
    if machine.quota is not None and machine.quota < machine.physical_cores:
        return (
            f"The control group grants {machine.quota:g} of {machine.physical_cores} cores; raise its CPU quota "
            f"(cpu.max, docker --cpus) to use the others."
        )
    if machine.allowed_cpus < machine.logical_cpus:
        return (
            f"The affinity mask allows {machine.allowed_cpus} of {machine.logical_cpus} processors; widen it (taskset, "
            f"cpuset) to use the others."
        )
    if machine.huge_pages == "never":
        return (
            "Huge pages are off, which slows reading of weights; turn them on: "
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled."
        )
    return _advise_on_memory(one, roofs, model)


def _advise_on_memory(one: Roofs, roofs: Roofs, model: Forecast | None) -> str:
    """Nothing is wrong with the machine: decoding waits for memory, on nearly every one."""
    gain = roofs.read_bytes_per_second / one.read_bytes_per_second
    speed = f"{roofs.read_bytes_per_second / 1e9:.1f} GB/s"
    if model is None:
        return (
            f"Decoding is limited by reading memory at {speed}: divide that by a model's size for the most tokens per "
            f"second, and take a smaller quantisation for more."
        )
    threads = (
        f" (more threads do not help: one alone reads at {one.read_bytes_per_second / 1e9:.1f})"
        if roofs.num_threads > 1 and gain < 1.15
        else ""
    )
    half = format_bytes(model.weight_bytes // 2)
    return (
        f"Decoding is limited by reading {format_bytes(model.weight_bytes)} of weights per token at {speed}{threads}; "
        f"only fewer bytes make it faster: weights of {half} would double it, and several sequences at once share one "
        f"reading."
    )


def _step_seconds(work: ModelWork, roofs: Roofs, first: int, count: int) -> float:
    """The least time of one step: whatever takes longer, reading or computing."""
    step = work.step([(first, count)], 1)
    return max(roofs.read_seconds(step), roofs.compute_seconds(step))


def _find_machine() -> Machine:
    from torchless.backends.cpu.extension import load_extension

    core = load_extension()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu=cpu_name(),
        level=core.isa(),
        levels=tuple(core.isa_levels()),
        logical_cpus=os.cpu_count() or 1,
        allowed_cpus=allowed,
        physical_cores=physical_cores(),
        quota=cpu_quota(),
        threads=usable_cores(),
        huge_pages=_huge_pages(),
        busy=_busy_share(allowed),
        memory=available_memory(),
    )


def _huge_pages(root: Path = Path("/")) -> str | None:
    """The word in brackets of ``always [madvise] never``."""
    try:
        setting = (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    return setting.partition("[")[2].partition("]")[0] or None


def _busy_share(num_cpus: int, seconds: float = 0.2) -> float | None:
    """Share of `num_cpus` processors that are used while this process sleeps, virtual neighbours included."""
    before = _busy_ticks()
    if before is None:
        return None
    time.sleep(seconds)
    after = _busy_ticks() or before
    return min(1.0, (after - before) / os.sysconf("SC_CLK_TCK") / seconds / num_cpus)


def _busy_ticks() -> int | None:
    """Clock ticks that all processors together were not idle."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return user + nice + system + irq + softirq + steal


def as_values(diagnosis: Diagnosis) -> dict[str, Any]:
    """Plain values for JSON."""
    from dataclasses import asdict

    values = asdict(diagnosis)
    memory = diagnosis.machine.memory
    values["machine"]["memory"] = None if memory is None else memory._asdict()
    return values
