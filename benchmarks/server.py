"""The server beside the engine alone, in one run: the same answers over HTTP and from Python, in turns.

    python -m benchmarks.server [MODEL] [--streams 1,16] [--tokens N] [--repetitions N]

`torchless serve` runs in a process of its own, with its clients here; the engine alone is a model in this process,
whose answers are streamed too. Both sleep while the other is measured. A speed is all tokens of all streams by the time
from the first request to the last token; the ratio is the median of neighbouring measurements.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import torchless


def prompts(model: torchless.LLM, count: int, seed: int) -> list[list[int]]:
    """Random token ids: no text is shared, so that the prefix cache has no part in it."""
    random = np.random.default_rng(seed)
    return random.integers(0, model.info["vocab_size"], (count, 32)).tolist()


def alone(model: torchless.LLM, several: list[list[int]], sampling: dict[str, Any]) -> float:
    """Tokens per second of streams from the engine."""

    async def stream(prompt: list[int]) -> int:
        return sum([len(chunk.token_ids) async for chunk in model.astream(prompt, **sampling)])

    async def everything() -> float:
        began = time.perf_counter()
        counts = await asyncio.gather(*map(stream, several))
        return sum(counts) / (time.perf_counter() - began)

    return asyncio.run(everything())


def served(url: str, several: list[list[int]], sampling: dict[str, Any]) -> float:
    """The same from the server."""

    async def stream(client: httpx.AsyncClient, prompt: list[int]) -> int:
        body = {"prompt": prompt, "stream": True, "stream_options": {"include_usage": True}, **sampling}
        count = 0
        async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if '"usage":{' in line:
                    count = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
        return count

    async def everything() -> float:
        async with httpx.AsyncClient(timeout=600) as client:
            began = time.perf_counter()
            counts = await asyncio.gather(*(stream(client, prompt) for prompt in several))
            return sum(counts) / (time.perf_counter() - began)

    return asyncio.run(everything())


@contextlib.contextmanager
def server(model: str | None, options: list[str]) -> Iterator[str]:
    """The address of a server that lives as long as the block."""
    words = [] if model is None else [model]
    with tempfile.NamedTemporaryFile(
        "w+", suffix=".log"
    ) as log:  # not a pipe, which fills when nobody reads it
        process = subprocess.Popen(
            [sys.executable, "-m", "torchless", "serve", *words, "--port", "0", *options], stderr=log
        )
        try:
            found = None
            while found is None and process.poll() is None:
                time.sleep(0.1)
                found = re.search(r"listening.*(http://[\d.:]+)", Path(log.name).read_text())
            if found is None:
                raise SystemExit(f"the server did not start: {Path(log.name).read_text()}")
            yield found[1]
        finally:
            process.terminate()
            process.wait(60)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a model; the built-in one if none is named")
    parser.add_argument("--streams", default="1,16", help="how many at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    sampling = {"max_tokens": options.tokens, "temperature": 0.0, "ignore_eos": True}
    rows = []
    with (
        server(options.model, ["--ctx", "512", "--speculative", "off"]) as url,
        torchless.load(options.model, ctx=512, speculative="off") as model,
    ):
        for count in map(int, options.streams.split(",")):
            speeds: list[tuple[float, float]] = []
            for repetition in range(options.repetitions + 1):
                several = prompts(model, count, 1000 * count + repetition)
                pair = alone(model, several, sampling), served(url, several, sampling)
                if repetition:  # the first one warms up
                    speeds.append(pair)
            ratios = [through / engine for engine, through in speeds]
            engine, through = (statistics.median(column) for column in zip(*speeds, strict=True))
            shares = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            rows.append([str(count), f"{engine:.1f}", f"{through:.1f}", shares])
    head = ["streams", "engine alone, tok/s", "through the server, tok/s", "share"]
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
