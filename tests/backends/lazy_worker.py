"""Compares models that stay in their files with packed ones on one level (TORCHLESS_ISA), in a process of its own.

Usage: lazy_worker.py ACTIVATIONS MODEL... Exits with what differed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from executors import logits_of, open_executor

LENGTH = 70


def check(path: Path, activations: str) -> None:
    packed = open_executor(path, threads=2, activations=activations)
    ids = np.random.default_rng(3).integers(0, packed.vocab_size, LENGTH).tolist()
    expected = logits_of(packed, ids, LENGTH)
    some = packed.memory_bytes()["weights"] // 3
    cases = [("all", 1, 0), ("all", 2, some)]
    cases += [("experts", 2, 0)] if "moe" in path.name else []
    for lazy, threads, packed_bytes in cases:
        run = open_executor(
            path, threads=threads, activations=activations, lazy=lazy, packed_bytes=packed_bytes
        )
        if lazy == "all" and (not run.mapped or run.memory_bytes()["weights"] > packed_bytes + (128 << 10)):
            sys.exit(f"{path.name}: the weights were packed")
        for chunk, length in ((1, 12), (9, LENGTH), (LENGTH, LENGTH)):
            found = logits_of(run, ids[:length], chunk)
            if not np.array_equal(found.view(np.uint32), expected[:length].view(np.uint32)):
                sys.exit(f"{path.name}, lazy={lazy}, {threads} threads, chunks of {chunk}: logits differ")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        check(Path(name), sys.argv[1])
