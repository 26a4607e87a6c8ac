"""Speculative decoding beside plain decoding, in one run: the same model loaded twice, its answers taken in turns.

    python -m benchmarks.speculation [MODEL] [--draft-model PATH] [--padded WIDTH] [--tokens N] [--repetitions N]

Each text is decoded by both, one after the other, `repetitions` times; the table has the median of both speeds, the
median of the ratios of neighbouring answers with their range, and what became of the drafts. Both must give the same
logits.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import torchless
from benchmarks.padded_stories import write_padded_stories

_SENTENCES = (
    "The fox saw a red kite near the lake. The dog saw a blue kite near the lake. "
    "The cat saw a green kite near the lake. "
)


def texts(model: torchless.LLM, seed: int) -> dict[str, tuple[list[int], dict[str, Any]]]:
    """Name -> prompt and sampling parameters."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, model.info["vocab_size"], 64).tolist()
    encode = model.tokenizer.encode
    return {
        "its own text, greedy": (encode("Once upon a time"), {"temperature": 0.0}),
        "its own text, temperature 0.8": (encode("Once upon a time"), {"temperature": 0.8, "seed": seed}),
        "repetitive text, greedy": (encode(_SENTENCES * 3), {"temperature": 0.0}),
        # As flat as float32 allows: every token is about as likely, so that nothing can be guessed.
        "random text": (
            noise,
            {"temperature": 1e4, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed, "ignore_eos": True},
        ),
    }


def measure(
    plain: torchless.LLM, drafting: torchless.LLM, num_tokens: int, repetitions: int
) -> list[list[str]]:
    """Rows of the table."""
    rows = []
    for name, (prompt, sampling) in texts(plain, 1).items():
        sampling = {**sampling, "max_tokens": num_tokens}
        speeds: dict[str, list[float]] = {"plain": [], "drafting": []}
        usage = None
        for repetition in range(repetitions + 1):
            for which, model in (("plain", plain), ("drafting", drafting)):
                done = model.generate(prompt, **sampling)
                if repetition:  # the first one warms up
                    speeds[which].append(done.timings.decode_tokens_per_second)
            usage = done.usage
        hashes = {
            model.generate(prompt, logits_hash=True, **sampling).logits_hash for model in (plain, drafting)
        }
        if len(hashes) != 1:
            raise SystemExit(f"{name}: drafting changed the logits")
        ratios = [b / a for a, b in zip(speeds["plain"], speeds["drafting"], strict=True)]
        assert usage is not None
        rows.append(
            [
                name,
                f"{statistics.median(speeds['plain']):.1f}",
                f"{statistics.median(speeds['drafting']):.1f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{usage.num_kept_tokens} of {usage.num_drafted_tokens}",
            ]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a model; the built-in one if none is named")
    parser.add_argument(
        "--padded", type=int, help="the built-in model with feed-forward layers of this width"
    )
    parser.add_argument("--activations", default="int8")
    parser.add_argument("--draft-model", default=None, help="built-in, or a path")
    parser.add_argument("--speculative", default="auto")
    parser.add_argument(
        "--draft-tokens", default="auto", type=lambda text: text if text == "auto" else int(text)
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", default="auto", type=lambda text: text if text == "auto" else int(text))
    options = parser.parse_args(arguments)
    load = {
        "threads": options.threads,
        "ctx": 1024 if options.model else 512,
        "activations": options.activations,
    }
    drafting = {
        "draft_model": options.draft_model,
        "speculative": options.speculative,
        "num_draft_tokens": options.draft_tokens,
    }
    with TemporaryDirectory(prefix="torchless-bench-") as folder:
        path = options.model
        if options.padded:
            path = Path(folder) / "stories-padded.gguf"
            write_padded_stories(path, options.padded)
        with (
            torchless.load(path, speculative="off", **load) as plain,
            torchless.load(path, **drafting, **load) as model,
        ):
            rows = measure(plain, model, options.tokens, options.repetitions)
    head = ["text", "plain tok/s", "drafting tok/s", "times as fast", "drafts that were right"]
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
