"""Checks the promise for one model on one instruction-set level (TORCHLESS_ISA), in a process of its own.

Usage: promise_worker.py MODEL KV_TYPE LENGTH [ACTIVATIONS [ADAPTER]]. Prints one hash of all logits, or fails saying
what differed. ACTIVATIONS "fast" is int8 in fast mode: sequences in fast arithmetic, and in batches beside exact ones.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from executors import Logits, logits_of, logits_of_batch, open_executor


def require_equal(found: Logits, expected: Logits, what: str) -> None:
    if not np.array_equal(found.view(np.uint32), expected.view(np.uint32)):
        rows = np.flatnonzero((found.view(np.uint32) != expected.view(np.uint32)).any(axis=1))
        sys.exit(f"{what}: logits differ in {len(rows)} rows, first in row {rows[0]}")


def main(path: Path, kv: str, length: int, activations: str = "int8", lora: str | None = None) -> None:
    random = np.random.default_rng(7)
    fast = activations == "fast"
    activations = "int8" if fast else activations
    first = open_executor(path, threads=1, kv=kv, activations=activations, lora=lora, fast=fast)
    ids = random.integers(0, first.vocab_size, length).tolist()
    expected = logits_of(first, ids, 1, fast=fast)
    if not np.isfinite(expected).all():
        sys.exit("logits are not finite")
    for chunk in (7, 64, min(length, 512)):
        require_equal(logits_of(first, ids, chunk, first_page=3, fast=fast), expected, f"chunks of {chunk}")
    second = open_executor(path, threads=2, kv=kv, activations=activations, lora=lora, fast=fast)
    for chunk in (1, 7, 64, min(length, 512)):
        require_equal(logits_of(second, ids, chunk, fast=fast), expected, f"2 threads, chunks of {chunk}")
    # Eight ragged sequences with eight chunk sizes; each must equal its own run alone.
    lengths = (1, 2, 31, 32, 33, 64, 97, 130)
    sequences = [random.integers(0, first.vocab_size, n).tolist() for n in lengths]
    num_exact = 3 if fast else None
    alone = [logits_of(first, ids, 1, fast=fast and i >= 3) for i, ids in enumerate(sequences)]
    for executor in (first, second):
        together = logits_of_batch(executor, sequences, (1, 2, 5, 32, 33, 7, 16, 1), num_exact)
        for i, (found, solo) in enumerate(zip(together, alone, strict=True)):
            require_equal(found, solo, f"sequence {i} in a batch of 8")
    print(hashlib.blake2b(expected.tobytes(), digest_size=8).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
