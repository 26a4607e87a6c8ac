"""torchless against llama.cpp on one GGUF file: prefill and decode at depths, load time and memory, interleaved.

Each contestant lives in a process of its own that sleeps while another one is measured. A round runs every
contestant once, in an order that turns from round to round; ratios are taken within rounds. README.md in this
folder tells how to get llama.cpp and how to read the report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shlex
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import machine_facts, physical_cores
from report import as_markdown, summarize
from workers import Usage, Worker, WorkerError, call_watched

CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "torchless": ("torchless", {}),
    "llama-default": ("llama_cpp", {"repack": True}),
    "llama-plain": ("llama_cpp", {"repack": False}),
}
"""Name -> engine file and its settings. `llama-plain` is llama.cpp without its repacked layouts (``--repack 0``).
Every ``--llama-bench`` adds one."""

DISTURBED = 0.10
"""A round counts as disturbed when others used more than this share of the CPU time that a test used."""


@dataclass(frozen=True, slots=True)
class Test:
    """`num_tokens` tokens, `batch` a step, after a prompt of `depth` tokens that is not timed.

    With several `sequences` each step has one token of each of them, and they have no prompt.
    """

    name: str
    num_tokens: int
    batch: int
    depth: int
    sequences: int = 1


@dataclass(slots=True)
class Round:
    """Every contestant once. Speeds by (test, contestant); written by `run_round` only."""

    tokens_per_second: dict[tuple[str, str], float] = field(default_factory=dict)
    read_bytes_per_second: float | None = None
    foreign_share: float = 0.0
    idle_cpu_s: float = 0.0

    def watch(self, usage: Usage) -> None:
        self.foreign_share = max(self.foreign_share, usage.foreign_share)
        self.idle_cpu_s += usage.idle_workers_cpu_s


def main() -> int:
    options = parse_options()
    contestants = chosen_contestants(options)
    tests = chosen_tests(options)
    with Path(options.model).open("rb") as file:  # Into the page cache, so that no load waits for the disk.
        while file.read(16 << 20):
            pass
    results: dict[str, Any] = {"machine": machine_facts(), "options": vars(options), "contestants": {}}
    with contextlib.ExitStack() as stack:
        workers = start_all(options, contestants, stack, results["contestants"])
        if not workers:
            print("error: no contestant could be started", file=sys.stderr)
            return 1
        bandwidth = start_bandwidth(options, stack)
        rounds = run_rounds(options, tests, workers, bandwidth, results["contestants"])
        vocab_size = max(n["facts"]["vocab_size"] for n in results["contestants"].values() if "facts" in n)
        results["end_to_end"] = run_end_to_end(options, workers, vocab_size)
        inside = {name: w for name, w in workers.items() if contestants[name][0] != "llama_bench"}
        for name, worker in inside.items():
            results["contestants"][name]["kv_bytes"] = worker.call("kv_bytes")
            results["contestants"][name]["peak_bytes"] = worker.peak_bytes()
        results["logits_difference"] = compare_logits(options, inside, vocab_size)
    results["file_bytes"] = Path(options.model).stat().st_size
    results |= summarize([test.name for test in tests], rounds, DISTURBED)
    if options.save:
        Path(options.save).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1) if options.output == "json" else as_markdown(results))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="GGUF file; `python -m torchless.bench.synthetic` writes one")
    parser.add_argument(
        "-p", type=counts, default=[512], metavar="N,..", help="prompt tokens (0: no prefill test)"
    )
    parser.add_argument(
        "-n", type=counts, default=[32], metavar="N,..", help="decoded tokens (0: no decode test)"
    )
    parser.add_argument("-d", type=counts, default=[0], metavar="N,..", help="tokens already in the context")
    parser.add_argument(
        "-s", type=counts, default=[], metavar="N,..", help="sequences that decode together, -n tokens each"
    )
    parser.add_argument("-t", type=int, default=physical_cores(), metavar="N", help="threads of each engine")
    parser.add_argument("-b", type=int, default=512, metavar="N", help="most tokens in one prefill step")
    parser.add_argument("-r", type=int, default=5, metavar="N", help="undisturbed rounds wanted")
    parser.add_argument("-o", dest="output", choices=("md", "json"), default="md", help="form of the report")
    parser.add_argument("--save", metavar="FILE", help="also write all figures as JSON")
    parser.add_argument("--kv", choices=("f16", "bf16"), default="f16", help="number format of the caches")
    parser.add_argument("--loads", type=int, default=3, metavar="N", help="times that each engine loads")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), metavar="A,B", help="which to run")
    parser.add_argument("--llama-python", default=sys.executable, metavar="PATH", help="has llama-cpp-python")
    parser.add_argument(
        "--llama-bench",
        action="append",
        default=[],
        metavar="COMMAND",
        help="a llama-bench binary, with arguments of its own if you like; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random token ids")
    options = parser.parse_args()
    unknown = set(options.contestants.split(",")) - set(CONTESTANTS)
    if unknown:
        parser.error(f"unknown contestants {sorted(unknown)}; known: {', '.join(CONTESTANTS)}")
    if not Path(options.model).is_file():
        parser.error(f"no such file: {options.model}")
    if not chosen_tests(options) or min(options.r, options.loads, options.b, options.t) < 1:
        parser.error("-p or -n must be above 0, and so must -r, -b, -t and --loads")
    return options


def counts(text: str) -> list[int]:
    """``0,4096`` -> [0, 4096]."""
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a number below 0")
    return numbers


def chosen_contestants(options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> engine file and settings of all that will run."""
    chosen = {name: CONTESTANTS[name] for name in options.contestants.split(",")}
    for i, command in enumerate(options.llama_bench, 1):
        name = "llama-bench" if len(options.llama_bench) == 1 else f"llama-bench-{i}"
        chosen[name] = ("llama_bench", {"command": shlex.split(command)})
    return chosen


def chosen_tests(options: argparse.Namespace) -> list[Test]:
    tests = []
    for depth in options.d:
        at = f" @ d{depth}" if depth else ""
        tests += [Test(f"pp{count}{at}", count, max(options.b, 2), depth) for count in options.p if count]
        tests += [Test(f"tg{count}{at}", count, 1, depth) for count in options.n if count]
    for sequences in options.s:
        tests += [
            Test(f"tg{count} x {sequences}", count * sequences, sequences, 0, sequences)
            for count in options.n
            if count
        ]
    return tests


def start_all(
    options: argparse.Namespace,
    contestants: dict[str, tuple[str, dict[str, Any]]],
    stack: contextlib.ExitStack,
    notes: dict[str, Any],
) -> dict[str, Worker]:
    """Starts every contestant, several times for the load times; one that fails is noted and left out."""
    workers = {}
    for name, (engine, settings) in contestants.items():
        notes[name] = {"loads_s": [], "error": None}
        python = options.llama_python if engine == "llama_cpp" else sys.executable
        num_loads = 1 if engine == "llama_bench" else options.loads
        try:
            for _ in range(num_loads - 1):
                with Worker(name, engine, python) as worker:
                    notes[name]["loads_s"].append(start(worker, options, settings)["load_s"])
            worker = stack.enter_context(Worker(name, engine, python))
            facts = start(worker, options, settings)
            notes[name]["loads_s"].append(facts["load_s"])
            notes[name] |= {"facts": facts, "loaded_bytes": worker.peak_bytes()}
            for test in chosen_tests(options):  # Warms up, and shows an engine that cannot run at all.
                worker.call("measure", **arguments_of(test, options.seed, facts["vocab_size"]))
            workers[name] = worker
        except WorkerError as error:
            notes[name]["error"] = str(error)
            print(f"note: {error}", file=sys.stderr)
    return workers


def start(worker: Worker, options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Loads the model in the worker; returns its facts."""
    longest = max(test.depth + test.num_tokens for test in chosen_tests(options))
    # Room for `generate`, which takes a prompt and then decodes, and for the logits' comparison.
    longest = max(longest, max(options.p) + max(options.n))
    common = {"model": options.model, "threads": options.t, "batch": max(options.b, 2), "kv": options.kv}
    common["context"] = -(-(longest + 64) // 256) * 256
    common["sequences"] = max([1, *options.s])
    worker.call("start", settings={**common, **settings})
    facts: dict[str, Any] = worker.call("facts")
    return facts


def start_bandwidth(options: argparse.Namespace, stack: contextlib.ExitStack) -> Worker | None:
    worker = stack.enter_context(Worker("bandwidth", "bandwidth"))
    try:
        worker.call("start", settings={"threads": options.t})
    except WorkerError as error:
        print(f"note: read bandwidth is not measured: {error}", file=sys.stderr)
        return None
    return worker


def run_rounds(
    options: argparse.Namespace,
    tests: list[Test],
    workers: dict[str, Worker],
    bandwidth: Worker | None,
    notes: dict[str, Any],
) -> list[Round]:
    """Rounds until enough of them were undisturbed, but at most three times as many as wanted."""
    rounds: list[Round] = []
    names = list(workers)
    while len(rounds) < 3 * options.r and sum(r.foreign_share <= DISTURBED for r in rounds) < options.r:
        turn = len(rounds) % len(names)
        this = Round()
        for name in names[turn:] + names[:turn]:
            vocab_size = notes[name]["facts"]["vocab_size"]
            others = [worker for other, worker in workers.items() if other != name]
            for test in tests:
                arguments = arguments_of(test, options.seed, vocab_size)
                seconds, usage = call_watched(workers[name], others, "measure", **arguments)
                this.tokens_per_second[test.name, name] = test.num_tokens / seconds
                this.watch(usage)
        if bandwidth is not None:
            this.read_bytes_per_second = bandwidth.call("measure", num_bytes=1 << 30)
        rounds.append(this)
        print(f"round {len(rounds)}: others used {this.foreign_share:.0%} of the CPU", file=sys.stderr)
    return rounds


def arguments_of(test: Test, seed: int, vocab_size: int) -> dict[str, Any]:
    ids = random.Random(seed).choices(range(vocab_size), k=test.depth + test.num_tokens)
    arguments = {"depth_ids": ids[: test.depth], "token_ids": ids[test.depth :], "batch": test.batch}
    return arguments if test.sequences == 1 else {**arguments, "sequences": test.sequences}


def run_end_to_end(
    options: argparse.Namespace, workers: dict[str, Worker], vocab_size: int
) -> list[dict[str, Any]]:
    """`generate` as a user calls it, the most -p tokens in and -n out."""
    if "torchless" not in workers or not max(options.n):
        return []
    ids = random.Random(options.seed).choices(range(vocab_size), k=max(1, *options.p))
    ours = workers["torchless"]
    others = [worker for worker in workers.values() if worker is not ours]
    runs: list[dict[str, Any]] = []
    while len(runs) < 3 * options.r and sum(run["foreign_share"] <= DISTURBED for run in runs) < options.r:
        run, usage = call_watched(ours, others, "generate", token_ids=ids, max_tokens=max(options.n))
        runs.append({**run, "foreign_share": usage.foreign_share})
    return [run for run in runs if run["foreign_share"] <= DISTURBED] or runs


def compare_logits(
    options: argparse.Namespace, workers: dict[str, Worker], vocab_size: int
) -> dict[str, float]:
    """Root mean square difference of each engine's logits from ours, relative to their own spread.

    Engines quantise activations in their own ways, so small differences are right; large ones mean that the
    engines do not compute the same model and that the comparison is worth nothing.
    """
    if "torchless" not in workers:
        return {}
    ids = random.Random(options.seed).choices(range(vocab_size), k=32)
    logits = {name: worker.call("logits", token_ids=ids) for name, worker in workers.items()}
    ours = logits.pop("torchless")
    return {
        name: math.dist(ours, theirs) / math.sqrt(len(theirs)) / statistics.pstdev(theirs)
        for name, theirs in logits.items()
    }


if __name__ == "__main__":
    sys.exit(main())
