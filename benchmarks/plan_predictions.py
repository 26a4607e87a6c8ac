"""What `torchless plan` predicts against what is then measured: peak memory, decoding and prefill, recipe by recipe.

Predictions and measurements take turns, each in a process of its own; README.md in this folder tells how to read
the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchless.bench.fresh_process import Job, run_job
from torchless.bench.synthetic import write_synthetic

CONTEXT, PROMPT, ANSWER = 1024, 960, 32
"""Tokens: of the cache, and of what a process reads and writes whose memory is measured."""
SPEED_PROMPT, SPEED_ANSWER = 512, 32
MEMORY_BOUND, SPEED_BOUND = 0.03, 0.15


@dataclass(slots=True)
class Figures:
    """One recipe: predicted and measured values, by round."""

    predicted: dict[str, list[float]] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)

    def deviation(self, name: str) -> float:
        """Median of the rounds' predicted / measured, less one."""
        pairs = zip(self.predicted[name], self.measured[name], strict=True)
        return statistics.median(a / b for a, b in pairs) - 1


def main() -> int:
    options = parse_options()
    found: dict[str, Figures] = {recipe: Figures() for recipe in options.recipes}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        files = {recipe: Path(folder) / f"{recipe}.gguf" for recipe in found}
        for recipe, path in files.items():
            write_synthetic(path, options.shape, recipe)
        for _ in range(options.rounds):
            for recipe, path in files.items():
                add(found[recipe].predicted, predict(path, recipe, options.threads))
                add(found[recipe].measured, measure(path, options.threads))
    print(table(found))
    if options.save is not None:
        values = {recipe: [one.predicted, one.measured] for recipe, one in found.items()}
        options.save.write_text(json.dumps(values, indent=1))
    outside = [
        f"{recipe} {name}"
        for recipe, one in found.items()
        for name, bound in (("peak", MEMORY_BOUND), ("decode", SPEED_BOUND), ("prefill", SPEED_BOUND))
        if abs(one.deviation(name)) > bound
    ]
    print(f"outside {MEMORY_BOUND:.0%} (memory) or {SPEED_BOUND:.0%} (speed): {', '.join(outside) or 'none'}")
    return 1 if outside else 0


def predict(path: Path, recipe: str, threads: int) -> dict[str, float]:
    """What `plan` says of the file as it is."""
    plan = run("plan", path, "--recipe", recipe, "--no-error", "-c", CONTEXT, "-t", threads, "-o", "json")
    row = next(row for row in plan["rows"] if row["recipe"] == "as it is")
    return {
        "peak": row["total_bytes"],
        "decode": row["decode_tokens_per_second"],
        "prefill": row["prefill_tokens_per_second"],
    }


def measure(path: Path, threads: int) -> dict[str, float]:
    """The same of a process that loads the file, reads a prompt and answers, and of `bench`."""
    report = run_job(Job(str(path), {"ctx": CONTEXT, "threads": threads}, PROMPT, ANSWER, 1))
    sizes = ("-p", SPEED_PROMPT, "-n", SPEED_ANSWER, "-r", 1)
    rows = run("bench", path, *sizes, "-t", threads, "-o", "json")
    speeds = {row["test"]: row["median_ts"] for row in rows}
    return {
        "peak": report["peak_bytes"],
        "decode": speeds[f"tg{SPEED_ANSWER}"],
        "prefill": speeds[f"pp{SPEED_PROMPT}"],
    }


def run(*words: object) -> Any:
    """What a verb of torchless prints as JSON."""
    command = [sys.executable, "-m", "torchless", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def add(values: dict[str, list[float]], more: dict[str, float]) -> None:
    for name, value in more.items():
        values.setdefault(name, []).append(value)


def table(found: dict[str, Figures]) -> str:
    lines = [
        "| recipe | peak MB, predicted | measured | decode tok/s, predicted | measured "
        "| prefill tok/s, predicted | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, one in found.items():
        cells = []
        for name, scale, form in (("peak", 1e6, ".0f"), ("decode", 1, ".1f"), ("prefill", 1, ".0f")):
            predicted, measured = (
                statistics.median(values[name]) / scale for values in (one.predicted, one.measured)
            )
            cells += [f"{predicted:{form}}", f"{measured:{form}} ({100 * one.deviation(name):+.1f} %)"]
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-3.2-1b", help="of torchless.bench.shapes")
    parser.add_argument("--recipes", default="Q2_K,Q4_K_M,Q6_K,Q8_0,BF16", help="comma-separated")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=3, help="medians are printed")
    parser.add_argument("--folder", type=Path, help="where the files go while it runs")
    parser.add_argument("--save", type=Path, help="every figure, as JSON")
    options = parser.parse_args()
    options.recipes = options.recipes.split(",")
    return options


if __name__ == "__main__":
    sys.exit(main())
