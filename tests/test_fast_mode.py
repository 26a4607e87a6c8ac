"""Fast mode through the front door: what it may change, and what it may not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import Run, make_batch, open_executor

import torchless
from torchless.backends import cpu
from torchless.bench.synthetic import write_synthetic
from torchless.engine.fast_tokens import FEWEST_FAST_TOKENS

core = pytest.importorskip("torchless._core")
pytestmark = pytest.mark.skipif(core.isa() != "avx512", reason="only avx512 has a fast mode")


@pytest.fixture
def model(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("stories260K-wide256/s260k-wide-Q4_K_M.gguf")


def ids(count: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(3, 512, count).tolist()


def test_a_long_prompt_is_computed_otherwise_and_a_short_one_is_not(model: Path) -> None:
    with torchless.load(model) as exact, torchless.load(model, fast=True) as fast:
        long, short = ids(FEWEST_FAST_TOKENS), ids(FEWEST_FAST_TOKENS - 1)
        np.testing.assert_array_equal(fast.logits(short), exact.logits(short))
        found, expected = fast.logits(long), exact.logits(long)
        error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
        assert 0 < error < 0.05
        assert fast.info["fast"] and not exact.info["fast"]


def test_chunks_threads_and_neighbours_do_not_change_a_bit(model: Path) -> None:
    """Prompts in fast arithmetic and decoded tokens, which are exact, meet in the steps of `batch`."""
    prompts = [ids(length, length) for length in (200, 20, 64, 131)]
    options = {"seed": 5, "max_tokens": 30, "logits_hash": True, "ignore_eos": True}
    seen = []
    for batch_tokens, threads in ((1, 1), (7, 2), (64, 1), (512, 2)):
        with torchless.load(model, batch_tokens=batch_tokens, threads=threads, fast=True) as llm:
            alone = [llm.generate(prompt, **options) for prompt in prompts]
            together = llm.batch(prompts, **options)
        seen += [[(c.token_ids, c.logits_hash) for c in completions] for completions in (alone, together)]
    assert all(completions == seen[0] for completions in seen)
    with torchless.load(model) as llm:
        exact = [llm.generate(prompt, **options).logits_hash for prompt in prompts]
    assert [a == b for a, (_, b) in zip(exact, seen[0], strict=True)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activations": "bf16"}, "int8 activations"),
        ({"lazy": True}, "or lazy out"),
        ({"backend": "reference"}, "the reference backend"),
    ],
)
def test_what_cannot_be_fast_says_so(model: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(torchless.UnsupportedError, match=words):
        torchless.load(model, fast=True, **options)
    with pytest.raises(torchless.InvalidRequestError, match="fast must be True or False"):
        torchless.load(model, fast=1)


def test_a_model_that_it_does_not_concern_is_named(
    shared_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = shared_data("stories260K-wide256/s260k-wide-Q8_0.gguf")
    with caplog.at_level(logging.WARNING, "torchless"), torchless.load(path, fast=True):
        pass
    assert "fast mode changes nothing" in caplog.text and "Q4_K" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "torchless"), torchless.load(path):
        pass
    assert not caplog.text


def test_fast_rows_are_checked(model: Path) -> None:
    run = Run(ids(8), 0)
    with pytest.raises(ValueError, match="without fast mode"):
        open_executor(model).step(make_batch([(run, 8)], 0))
    run.done = 0
    with pytest.raises(ValueError, match="fast rows from -1 on, of 8"):
        open_executor(model, fast=True).step(replace(make_batch([(run, 8)]), first_fast_row=-1))


def test_the_scratch_that_was_announced_is_what_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write_synthetic(path, "test", "Q4_K_M", layers=1)
    with torchless.load(path, fast=True, threads=2, ctx=64) as llm:
        executor = llm._loaded.executor
        needed = cpu.required_bytes(llm.plan, llm._loaded.source, executor.options)
        taken = executor.memory_bytes()
    assert 0.95 * needed["scratch"] < taken["scratch"] <= needed["scratch"]
