"""What picking tokens costs: milliseconds for one token of each of several sequences, by chain.

Logits fall with the rank as those of language models do, in a random order.

    python -m benchmarks.sampling --sequences 8 --vocabulary 128256
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from torchless.sampling.candidates import largest
from torchless.sampling.chain import Sampler
from torchless.sampling.parameters import SamplingParams

CHAINS = {
    "default": {},
    "with a penalty": {"repeat_penalty": 1.1},
    "without top-k": {"top_k": 0},
    "temperature alone": {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "greedy": {"temperature": 0},
}


def main() -> None:
    """Prints a line for each chain: the least of several rounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=8, help="tokens that are picked one after another")
    parser.add_argument("--vocabulary", type=int, default=128_256, help="tokens to pick from")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    ranks = np.arange(1, arguments.vocabulary + 1)
    rows = [random.permutation(-1.5 * np.log(ranks)).astype(np.float32) for _ in range(arguments.sequences)]
    history = random.integers(0, arguments.vocabulary, 600).astype(np.int32)
    for name, settings in CHAINS.items():
        sampler = Sampler(SamplingParams(seed=1, **settings))
        count = sampler.num_best
        bests = [(largest(row, count), row) for row in rows] if count is not None else []
        taken = []
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            if count is None:
                for row in rows:
                    sampler.pick(row, history)
            else:
                for ids, row in bests:
                    sampler.pick_best(ids, row[ids], history)
            taken.append(time.perf_counter() - began)
        reads = "whole rows" if count is None else f"the largest {count} of each row"
        print(f"{name:20} {min(taken) * 1e3:8.3f} ms, from {reads}")


if __name__ == "__main__":
    main()
