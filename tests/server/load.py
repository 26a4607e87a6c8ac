"""Many clients of one server at random: streams, disconnections, short and long prompts, each answer compared."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stress import Job, make_jobs

import torchless

PATHS = ("/v1/completions", "/v1/chat/completions", "/completion", "/api/generate")


@dataclass
class LoadReport:
    """What happened. `failures` has a sentence for each wrong answer and each error that is no 429."""

    seconds: float = 0.0
    finished: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    num_characters: int = 0
    health_ms: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def health_p99_ms(self) -> float:
        """Of all answers of /health meanwhile."""
        return statistics.quantiles(self.health_ms, n=100)[98] if len(self.health_ms) > 1 else 0.0

    @property
    def growth_mib(self) -> float:
        """Of the server's memory between the first and the last quarter of the run."""
        quarter = max(len(self.rss_mib) // 4, 1)
        return statistics.median(self.rss_mib[-quarter:]) - statistics.median(self.rss_mib[:quarter] or [0.0])

    def __str__(self) -> str:
        lines = [
            f"{self.seconds:.0f} s: {sum(self.finished.values())} answers compared ({self.num_characters} characters), "
            f"{sum(self.left.values())} clients left early, {self.refused} times 429",
            f"/health: p50 {statistics.median(self.health_ms or [0]):.1f} ms, p99 {self.health_p99_ms:.1f} ms, "
            f"most {max(self.health_ms or [0]):.1f} ms of {len(self.health_ms)}; "
            f"memory {max(self.rss_mib or [0]):.0f} MiB at most, grew by {self.growth_mib:.1f} MiB",
            "finished: " + ", ".join(f"{name} {count}" for name, count in sorted(self.finished.items())),
            f"{len(self.failures)} failures",
        ]
        return "\n".join([*lines, *self.failures[:20]])


class Load:
    """Clients of the built-in model's server.

    Args:
        url: the server.
        seed: of all that is left to chance.
        pid: the server's process, whose memory is watched; None not to.
    """

    def __init__(self, url: str, seed: int = 1, num_jobs: int = 60, pid: int | None = None) -> None:
        self.url, self.seed, self.pid = url, seed, pid
        self.report = LoadReport()
        self.jobs = make_jobs(num_jobs, seed, longest=300)
        with torchless.load() as model:
            self.texts = [(self._text(model, job), self._chat_text(model, job)) for job in self.jobs]

    def run(self, seconds: float, num_clients: int = 64) -> LoadReport:
        """Works for so long and waits until all is over."""
        asyncio.run(self._run(seconds, num_clients))
        return self.report

    async def _run(self, seconds: float, num_clients: int) -> None:
        began = time.perf_counter()
        self._ends_at = began + seconds
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.url, timeout=120, limits=limits) as client:
            watching = asyncio.create_task(self._watch(client))
            await asyncio.gather(*(self._client(client, number) for number in range(num_clients)))
            self.report.seconds = time.perf_counter() - began
            watching.cancel()
            await self._check_rest(client)

    async def _watch(self, client: httpx.AsyncClient) -> None:
        while True:
            began = time.perf_counter()
            answer = await client.get("/health")
            self.report.health_ms.append((time.perf_counter() - began) * 1e3)
            if answer.status_code != 200:
                self._fail(f"/health: {answer.status_code} {answer.text:.200}")
            if self.pid is not None and Path(f"/proc/{self.pid}/statm").exists():
                pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
                self.report.rss_mib.append(pages * 4096 / 2**20)
            await asyncio.sleep(0.05)

    async def _client(self, client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(f"{self.seed} client {number}")
        while time.perf_counter() < self._ends_at:
            index, path = chance.randrange(len(self.jobs)), chance.choice(PATHS)
            leaves_after = chance.choice([None, None, 0, 1, 10, 100])
            try:
                await self._ask(client, path, index, leaves_after)
            except Exception as error:
                self._fail(f"{path}: {error!r}")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.expovariate(20))

    async def _ask(self, client: httpx.AsyncClient, path: str, index: int, leaves_after: int | None) -> None:
        job = self.jobs[index]
        pieces: list[str] = []
        async with client.stream("POST", path, json=_body(path, job)) as answer:
            if answer.status_code == 429:
                self.report.refused += 1
                await asyncio.sleep(min(float(answer.headers["retry-after"]), 2.0))
                return
            if answer.status_code != 200:
                text = (await answer.aread()).decode()
                self._fail(f"{path}: {answer.status_code} {text:.300}")
                return
            async for line in answer.aiter_lines():
                pieces += _pieces(path, line)
                if leaves_after is not None and len(pieces) > leaves_after:
                    break
            else:
                leaves_after = None
        expected, got = self.texts[index]["chat" in path], "".join(pieces)
        if leaves_after is not None:
            self.report.left[path] += 1
            if not expected.startswith(got):
                self._fail(f"{path}, left early: {got!r} is no beginning of {expected!r}")
            return
        self.report.finished[path] += 1
        self.report.num_characters += len(got)
        if got != expected:
            self._fail(f"{path}: {got!r} instead of {expected!r} for {job}")

    async def _check_rest(self, client: httpx.AsyncClient) -> None:
        """Nothing runs and no page is in use any more, within a second."""
        wanted = ("torchless_sequences_running", "torchless_sequences_waiting", "torchless_kv_pages_in_use")
        for _ in range(20):
            text = (await client.get("/metrics")).text
            lines = [line for line in text.splitlines() if line.startswith(wanted)]
            if all(float(line.split()[-1]) == 0 for line in lines):
                assert lines, f"no such metrics: {wanted}"
                return
            await asyncio.sleep(0.05)
        self._fail(f"left behind: {lines}")

    def _fail(self, sentence: str) -> None:
        self.report.failures.append(sentence)

    @staticmethod
    def _text(model: torchless.LLM, job: Job) -> str:
        return model.generate(job.prompt, **job.options).text

    @staticmethod
    def _chat_text(model: torchless.LLM, job: Job) -> str:
        return model.chat([{"role": "user", "content": job.prompt}], **job.options).text


def _body(path: str, job: Job) -> dict[str, Any]:
    """A job in the form of an API."""
    options = dict(job.options)
    if path == "/v1/chat/completions":
        return {"messages": [{"role": "user", "content": job.prompt}], "stream": True, **options}
    if path == "/api/generate":
        options["num_predict"] = options.pop("max_tokens")
        return {"model": "stories", "prompt": job.prompt, "raw": True, "options": options}
    return {"prompt": job.prompt, "stream": True, **options}


def _pieces(path: str, line: str) -> list[str]:
    """Text in a line of a stream."""
    line = line.removeprefix("data: ").strip()
    if not line or line == "[DONE]" or line.startswith(":"):
        return []
    event = json.loads(line)
    if path == "/api/generate":
        return [event["response"]] if event.get("response") else []
    if path == "/completion":
        return [event["content"]] if event.get("content") else []
    for choice in event.get("choices", ()):
        text = choice.get("text") if path == "/v1/completions" else choice["delta"].get("content")
        if text:
            return [text]
    return []
