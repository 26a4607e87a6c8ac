"""A process that starts, loads a model and answers, timed from outside: cold start, latency, memory.

The parent starts ``python -m torchless.bench.fresh_process`` with the job as JSON; the last line that it prints is the
report. A process of its own is the only way to know what a first token costs, and whose memory was used.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torchless.errors import TorchlessError

if TYPE_CHECKING:
    from torchless.llm import LLM

__all__ = ["Job", "run_job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What the process does: loads, then answers `repetitions` times after one answer that warms up.

    Attributes:
        load: keywords of `torchless.load`.
        repetitions: 0 ends the process at its first token.
        spawned_at: `time.monotonic` just before the process is started; that clock is the machine's.
    """

    model: str
    load: dict[str, Any]
    prompt_tokens: int
    new_tokens: int
    repetitions: int
    seed: int = 0
    spawned_at: float = 0.0


def run_job(job: Job) -> dict[str, Any]:
    """Runs the job in a new process; returns its report.

    Raises:
        TorchlessError: the process failed; the message is its own.
    """
    spawned = Job(**{**asdict(job), "spawned_at": time.monotonic()})
    done = subprocess.run(
        [sys.executable, "-m", "torchless.bench.fresh_process", json.dumps(asdict(spawned))],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise TorchlessError(f"the process that was to run {job.model} failed: {lines[-1]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def main(text: str) -> int:
    """The process itself; returns its exit status."""
    job = Job(**json.loads(text))
    import torchless

    imported_at = time.monotonic()
    faults = _page_faults()
    try:
        with torchless.load(job.model, prefix_cache=False, **job.load) as llm:
            report: dict[str, Any] = {
                "load_page_faults": _page_faults() - faults,
                "loaded_bytes": _peak_bytes(),
            }
            loaded_at = time.monotonic()
            first_token_at = _first_token(llm, job)
            report |= {
                "import_s": imported_at - job.spawned_at,
                "load_s": loaded_at - imported_at,
                "start_s": first_token_at - job.spawned_at,
            }
            if job.repetitions:
                report |= _answer_often(llm, job)
    except TorchlessError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


def _first_token(llm: LLM, job: Job) -> float:
    """When the first token of a first answer was there."""
    for _ in llm.stream(_prompt(llm, job), max_tokens=1, temperature=0, ignore_eos=True):
        pass
    return time.monotonic()


def _answer_often(llm: LLM, job: Job) -> dict[str, Any]:
    from torchless.backends.cpu.extension import load_extension

    core, prompt = load_extension(), _prompt(llm, job)
    first_token_s: list[float] = []
    next_token_s: list[float] = []
    answers_s: list[float] = []
    decode_s: list[float] = []
    _answer(llm, job, prompt)  # warms up
    allocations, faults, cpu = core.allocation_count(), _page_faults(), time.process_time()
    for _ in range(job.repetitions):
        stamps = _answer(llm, job, prompt)
        first_token_s.append(stamps[1] - stamps[0])
        next_token_s += [stamps[i] - stamps[i - 1] for i in range(2, len(stamps))]
        answers_s.append(stamps[-1] - stamps[0])
        decode_s.append(stamps[-1] - stamps[1])
    cpu, num_tokens = (
        time.process_time() - cpu,
        job.repetitions * (max(job.prompt_tokens, 1) + job.new_tokens),
    )
    faults, allocations = _page_faults() - faults, core.allocation_count() - allocations
    hashed = llm.generate(prompt, max_tokens=job.new_tokens, temperature=0, ignore_eos=True, logits_hash=True)
    return {
        "first_token_s": first_token_s,
        "next_token_s": next_token_s,
        "decode_s": decode_s,
        "cpu_utilisation": cpu / sum(answers_s) / llm.info["num_threads"],
        "allocations_per_token": allocations / num_tokens,
        "page_faults_per_token": faults / num_tokens,
        "peak_bytes": _peak_bytes(),
        "logits_hash": hashed.logits_hash,
    }


def _answer(llm: LLM, job: Job, prompt: list[int]) -> list[float]:
    """One answer's clock: when it was asked for, and when each token was there."""
    stamps = [time.perf_counter()]
    for chunk in llm.stream(prompt, max_tokens=job.new_tokens, temperature=0, ignore_eos=True):
        now, count = time.perf_counter(), len(chunk.token_ids)
        # Text that ends inside a character is held back: its tokens come together, at equal distances.
        before = stamps[-1]
        stamps += [before + (now - before) * (i + 1) / count for i in range(count)]
    return stamps


def _prompt(llm: LLM, job: Job) -> list[int]:
    import numpy as np

    generator = np.random.Generator(np.random.PCG64([job.seed, 0]))
    return [int(i) for i in generator.integers(0, llm.info["vocab_size"], max(job.prompt_tokens, 1))]


def _page_faults() -> int:
    """Page faults of this process so far, those that needed the disk included; 0 where none are counted."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def _peak_bytes() -> int:
    """Most resident memory so far, pages of mapped files included; 0 where the system does not tell."""
    from pathlib import Path

    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
