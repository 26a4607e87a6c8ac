"""Rows of a large embedding table in a file do not stay in this process's memory once they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from executors import logits_of, open_executor

from torchless.bench.synthetic import write_synthetic
from torchless.weights.mapped_file import is_mapped

pytest.importorskip("torchless._core")


def mapped_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what is mapped")
def test_a_long_prompt_keeps_hardly_any_of_the_table(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "m.gguf", "tinyllama-1.1b", "Q8_0", layers=1)  # a table of 70 MB
    run = open_executor(tmp_path / "m.gguf", max_tokens=64)
    ids = np.random.default_rng(0).integers(0, run.vocab_size, 64).tolist()
    logits_of(run, ids[:1], 1)
    before = mapped_bytes()
    first = logits_of(run, ids, 64)
    assert mapped_bytes() - before < 16 << 20
    np.testing.assert_array_equal(logits_of(run, ids, 64), first)


def test_only_maps_of_files_may_be_given_back(tmp_path: Path) -> None:
    """Memory of its own would be lost, not read again."""
    from torchless.weights.open import open_source

    write_synthetic(tmp_path / "m.gguf", "test", "Q8_0")
    raw = open_source(tmp_path / "m.gguf").raw("token_embd.weight")
    assert is_mapped(raw)
    assert is_mapped(raw[64:].reshape(-1, 2))
    assert not is_mapped(raw.copy())
    assert not is_mapped(np.zeros(8, np.uint8))
    assert not is_mapped(np.frombuffer(bytearray(8), np.uint8))
