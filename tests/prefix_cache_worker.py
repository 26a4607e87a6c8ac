"""Answers prompts with a prefix cache on disk, to be killed at any moment. See test_prefix_cache_disk.py.

Usage: prefix_cache_worker.py MODEL FOLDER SIZE SEED COUNT [on|off]. Prints a line for each answer: the number of its
prompt and a hash of its logits. The prompts are the same for every seed, their order is not.
"""

from __future__ import annotations

import random
import sys

import torchless

NUM_PROMPTS = 12


def prompts() -> list[list[int]]:
    """Token ids that share beginnings."""
    chance = random.Random(11)
    texts = [[chance.randrange(3, 500) for _ in range(180)] for _ in range(3)]
    return [
        texts[number % 3][: chance.randrange(40, 180)] + [chance.randrange(3, 500) for _ in range(number)]
        for number in range(NUM_PROMPTS)
    ]


def main(model: str, folder: str, size: str, seed: str, count: str, where: str = "on") -> None:
    options = {"prefix_cache_dir": folder, "prefix_cache_size": size} if where == "on" else {}
    chance, everything = random.Random(seed), prompts()
    with torchless.load(model, ctx=256, threads=1, prefix_cache=where == "on", **options) as llm:
        print("ready", flush=True)
        for turn in range(int(count)):
            number = turn % NUM_PROMPTS if where == "off" else chance.randrange(NUM_PROMPTS)
            answer = llm.generate(everything[number], max_tokens=8, seed=1, logits_hash=True, ignore_eos=True)
            print(number, answer.logits_hash, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
