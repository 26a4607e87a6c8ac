"""Damaged GGUF files: 3000 fixed random mutations here, `scripts/fuzz_gguf` for the long run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gguf_fuzzing import address_space_limit, base_files, fuzz, read_everything


def test_the_files_that_are_damaged_are_valid(tmp_path: Path) -> None:
    for number, data in enumerate(base_files()):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        read_everything(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux means")
def test_damaged_files_raise_only_the_promised_errors_and_take_no_memory() -> None:
    with address_space_limit(256 << 20):
        report = fuzz(count=3000, seed=20240607)
    assert report.opened > 100 and report.refused > 1500  # The mutations neither spare nor ruin every file.
    assert report.slowest_s < 2
