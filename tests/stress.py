"""Threads and tasks that use one model at random: what each of them gets must be what it would get alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torchless
from torchless.speculative import BUILT_IN_DRAFT

TEXT = "the little dog ran to a big red ball and mom said yes we can play in park with Lily Tom again"
WORDS = TEXT.split()


@dataclass(frozen=True)
class Job:
    """A request that can be repeated: its parameters hold its seed."""

    prompt: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What must come out."""

    token_ids: tuple[int, ...]
    logits_hash: str


@dataclass
class Report:
    """What happened. `failures` has a sentence for each answer that was wrong and each error."""

    seconds: float = 0.0
    finished: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    num_tokens: int = 0
    num_preemptions: int = 0
    num_pages: int = 0
    mean_batch: float = 0.0
    failures: list[str] = field(default_factory=list)
    rss_growth_bytes: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.seconds:.0f} s: {sum(self.finished.values())} answers finished and compared "
            f"({self.num_tokens} tokens), {sum(self.cancelled.values())} cancelled, "
            f"{self.num_preemptions} preemptions ({self.num_pages} pages), {self.mean_batch:.1f} sequences a step, "
            f"memory grew by {self.rss_growth_bytes / 2**20:.1f} MiB",
            "finished: " + ", ".join(f"{name} {count}" for name, count in sorted(self.finished.items())),
            "cancelled: " + ", ".join(f"{name} {count}" for name, count in sorted(self.cancelled.items())),
            f"{len(self.failures)} failures",
        ]
        return "\n".join([*lines, *self.failures[:20]])


def make_jobs(count: int, seed: int, longest: int, *, growing: float = 0.0) -> list[Job]:
    """Prompts and parameters of all kinds; prompt and answer together have up to about `longest` tokens.

    The share `growing` of them begins short and ends long: these are let in together and then need each other's pages.
    """
    chance = random.Random(seed)
    jobs = []
    for number in range(count):
        num_words = chance.choice([1, 3, 10, 30, longest // 4, longest // 3])
        options: dict[str, Any] = {
            "max_tokens": chance.randint(1, longest // 3),
            "seed": number,
            "ignore_eos": chance.random() < 0.5,
        }
        if growing and chance.random() < growing:
            num_words = chance.choice([1, 3, longest // 12])
            options |= {"max_tokens": chance.randint(longest // 2, 2 * longest // 3), "ignore_eos": True}
        kind = chance.randrange(4)
        if kind == 0:
            options["temperature"] = 0
        elif kind == 1:
            options |= {"temperature": chance.uniform(0.2, 1.8), "top_k": chance.choice([0, 5, 40])}
        elif kind == 2:
            options |= {"temperature": 1.0, "top_p": chance.uniform(0.3, 1.0), "min_p": 0.02}
        else:
            options |= {"repeat_penalty": 1.2, "stop": [" the", "."] if chance.random() < 0.5 else []}
        if chance.random() < 0.3:  # tokens are taken back
            options["banned"] = chance.sample([" a", "the", ".", "ed", " to the", "y and"], k=2)
        jobs.append(Job(" ".join(chance.choices(WORDS, k=max(num_words, 1))), options))
    return jobs


def answer_alone(model: torchless.LLM, job: Job) -> Answer:
    """What a job gives when nothing else is under way."""
    completion = model.generate(job.prompt, logits_hash=True, **job.options)
    return Answer(completion.token_ids, completion.logits_hash)


class Stress:
    """Runs jobs on a model from many sides at once.

    Args:
        model: the one under test.
        jobs, answers: what to ask, and what must come out.
        seed: of all that is left to chance.
    """

    def __init__(self, model: torchless.LLM, jobs: list[Job], answers: list[Answer], seed: int) -> None:
        self.model = model
        self.pool = list(zip(jobs, answers, strict=True))
        self.seed = seed
        self.report = Report()
        self._lock = threading.Lock()
        self._beams: dict[str, Answer] = {}  # by prompt: whoever comes first says what must come out
        self._ends_at = 0.0

    def run(self, seconds: float, num_threads: int = 16, num_tasks: int = 16) -> Report:
        """Works for so long, waits until all is over, and checks that nothing is left behind."""
        start = time.perf_counter()
        self._ends_at = start + seconds
        workers = [threading.Thread(target=self._thread, args=(number,)) for number in range(num_threads)]
        workers.append(threading.Thread(target=lambda: asyncio.run(self._tasks(num_tasks))))
        for worker in workers:
            worker.start()
        time.sleep(seconds / 5)
        rss = resident_bytes()
        for worker in workers:
            worker.join(seconds + 120)
            if worker.is_alive():
                self._fail("a worker did not come to its end")
        report = self.report
        report.seconds = time.perf_counter() - start
        metrics = self.model.metrics()
        report.num_preemptions = metrics.num_preemptions
        report.num_pages = metrics.num_pages
        report.mean_batch = metrics.batch_sequences.mean
        self._check_end()
        report.rss_growth_bytes = max(0, resident_bytes() - rss)
        return report

    def _check_end(self) -> None:
        """Everything was given back."""
        self.model._runner.call(lambda engine: None)  # what was cancelled last is gone once this came through
        metrics, memory = self.model.metrics(), self.model.info["memory_bytes"]
        if metrics.num_running or metrics.num_waiting:
            self._fail(f"{metrics.num_running} sequences still run and {metrics.num_waiting} wait")
        kept = metrics.num_pages_kept * memory["kv_page"]
        if metrics.num_pages_in_use or memory["kv_used"] != kept:
            self._fail(
                f"{metrics.num_pages_in_use} pages are still in use, and {memory['kv_used']} bytes where kept ones "
                f"take {kept}"
            )
        if metrics.num_requests != metrics.num_finished + metrics.num_cancelled:
            self._fail("requests were lost: " + str(metrics))

    # -- what is compared -------------------------------------------------------------------------

    def _finished(self, kind: str, expected: Answer, completion: torchless.Completion) -> None:
        got = Answer(completion.token_ids, completion.logits_hash)
        with self._lock:
            self.report.finished[kind] += 1
            self.report.num_tokens += len(got.token_ids)
        if got != expected:
            self._fail(f"{kind}: {got} instead of {expected} ({completion.params})")

    def _cancelled(self, kind: str, expected: Answer, got: list[int]) -> None:
        with self._lock:
            self.report.cancelled[kind] += 1
        if tuple(got) != expected.token_ids[: len(got)]:
            self._fail(f"{kind}, cancelled: {got} is no beginning of {expected.token_ids}")

    def _fail(self, sentence: str) -> None:
        with self._lock:
            self.report.failures.append(sentence)

    # -- threads ----------------------------------------------------------------------------------

    def _thread(self, number: int) -> None:
        chance = random.Random(f"{self.seed} thread {number}")
        acts = [self._generate, self._stream, self._submit, self._iterate, self._cancel_future, self._batch]
        acts += [self._several, self._seek]
        while time.perf_counter() < self._ends_at:
            try:
                chance.choice(acts)(chance)
            except Exception as error:
                self._fail(f"thread {number}: {error!r}")
            if chance.random() < 0.2:
                time.sleep(chance.expovariate(50))

    def _generate(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        self._finished("generate", expected, self.model.generate(job.prompt, logits_hash=True, **job.options))

    def _stream(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        stop_after = chance.choice([0, 1, 5, 1000])
        got: list[int] = []
        chunks = self.model.stream(job.prompt, logits_hash=True, **job.options)
        for count, chunk in enumerate(chunks):
            got += chunk.token_ids
            if chunk.completion is not None:
                self._finished("stream", expected, chunk.completion)
            elif count == stop_after:
                chunks.close()
                self._cancelled("stream", expected, got)
                return

    def _submit(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        future = self.model.submit(job.prompt, logits_hash=True, **job.options)
        self._finished("submit", expected, future.result(300))

    def _iterate(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        future = self.model.submit(job.prompt, logits_hash=True, **job.options)
        time.sleep(chance.expovariate(500))
        got = [token for chunk in future for token in chunk.token_ids]
        self._cancelled("iterate", expected, got)
        self._finished("iterate", expected, future.result())

    def _cancel_future(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        future = self.model.submit(job.prompt, logits_hash=True, **job.options)
        time.sleep(chance.expovariate(200))
        if future.cancel():
            self._cancelled("submit", expected, [])
            try:
                future.result()
                self._fail("a cancelled future has a result")
            except CancelledError:
                pass
        else:
            self._finished("submit", expected, future.result())

    def _batch(self, chance: random.Random) -> None:
        pairs = chance.choices(self.pool, k=chance.randint(1, 4))
        requests = [torchless.Request(job.prompt, logits_hash=True, **job.options) for job, _ in pairs]
        for (_, expected), completion in zip(pairs, self.model.batch(requests), strict=True):
            self._finished("batch", expected, completion)

    def _several(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        done = self.model.generate(job.prompt, logits_hash=True, n=chance.choice([2, 3]), **job.options)
        self._finished("several", expected, done)

    def _seek(self, chance: random.Random) -> None:
        prompt = " ".join(chance.choice([WORDS[:3], WORDS[4:20]]))
        done = self.model.beam_search(prompt, beams=2, max_tokens=40)
        found = Answer(done.token_ids, str(done.mean_logprob))
        with self._lock:
            expected = self._beams.setdefault(prompt, found)
            self.report.finished["beams"] += 1
        if found != expected:
            self._fail(f"beams: {found} instead of {expected}")

    # -- tasks ------------------------------------------------------------------------------------

    async def _tasks(self, count: int) -> None:
        await asyncio.gather(*(self._task(number) for number in range(count)))

    async def _task(self, number: int) -> None:
        chance = random.Random(f"{self.seed} task {number}")
        acts = [self._agenerate, self._astream, self._cancel_task, self._await_future]
        while time.perf_counter() < self._ends_at:
            try:
                await chance.choice(acts)(chance)
            except Exception as error:
                self._fail(f"task {number}: {error!r}")
            if chance.random() < 0.2:
                await asyncio.sleep(chance.expovariate(50))

    async def _agenerate(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        completion = await self.model.agenerate(job.prompt, logits_hash=True, **job.options)
        self._finished("agenerate", expected, completion)

    async def _astream(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        stop_after, count, got = chance.choice([0, 1, 5, 1000]), 0, []
        chunks = self.model.astream(job.prompt, logits_hash=True, **job.options)
        async for chunk in chunks:
            got += chunk.token_ids
            if chunk.completion is not None:
                self._finished("astream", expected, chunk.completion)
            elif count == stop_after:
                await chunks.aclose()
                self._cancelled("astream", expected, got)
                return
            count += 1

    async def _cancel_task(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        task = asyncio.create_task(self.model.agenerate(job.prompt, logits_hash=True, **job.options))
        await asyncio.sleep(chance.expovariate(200))
        task.cancel()
        try:
            self._finished("agenerate", expected, await task)
        except asyncio.CancelledError:
            self._cancelled("agenerate", expected, [])

    async def _await_future(self, chance: random.Random) -> None:
        job, expected = chance.choice(self.pool)
        self._finished(
            "await future",
            expected,
            await self.model.submit(job.prompt, logits_hash=True, **job.options),
        )


def smallest_memory(model: Path | None, ctx: int) -> int:
    """Bytes with which a model gets the pages of one context and little more."""
    with torchless.load(model, ctx=ctx) as loaded:
        memory = loaded.info["memory_bytes"]
    return int(1.4 * (memory["weights"] + memory["scratch"] + memory["kv_page"] * (ctx // 32)))


def run_stress(
    seconds: float, *, seed: int = 1, scarce: bool = False, num_jobs: int = 100, **load: Any
) -> Report:
    """Loads the built-in model, gets every job's answer alone, then does everything at once.

    Args:
        scarce: load the built-in model's draft model, which is a sixth of it, with a short context and no more memory
            than that needs; most answers are long. So sequences take each other's pages as often as can be.
    """
    model, ctx, longest, growing = (BUILT_IN_DRAFT, 128, 100, 0.8) if scarce else (None, 256, 200, 0.0)
    scored = {"logprobs": 2, "prompt_logprobs": 0}
    jobs = [
        Job(job.prompt, {**job.options, **(scored if number % 5 == 0 else {})})
        for number, job in enumerate(make_jobs(num_jobs, seed, longest, growing=growing))
    ]
    with torchless.load(model, ctx=ctx, **load) as loaded:
        answers = [answer_alone(loaded, job) for job in jobs]
    cap = {"memory": smallest_memory(model, ctx)} if scarce else {}
    with torchless.load(model, ctx=ctx, **cap, **load) as loaded:
        return Stress(loaded, jobs, answers, seed).run(seconds)


def resident_bytes() -> int:
    """Physical memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except OSError:
        return 0
