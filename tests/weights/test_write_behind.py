"""Files written in a thread of their own: the order of bytes, and errors that are not lost."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from torchless.weights.write_behind import WriteBehind


def test_chunks_of_every_size_keep_their_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    chunks = [random.integers(0, 256, size, np.uint8) for size in (3, 1 << 20, 0, 7, 1 << 19, 1 << 18, 5)]
    with (tmp_path / "file").open("wb") as file, WriteBehind(file) as out:
        for chunk in chunks:
            out.write(chunk)
            out.write(b"|")
    assert (tmp_path / "file").read_bytes() == b"".join(chunk.tobytes() + b"|" for chunk in chunks)


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_an_error_of_the_thread_is_raised(num_chunks: int) -> None:
    with pytest.raises(OSError, match="No space left"), WriteBehind(FullDisk()) as out:
        for _ in range(num_chunks):
            out.write(np.zeros(1 << 20, np.uint8))


def test_an_error_of_the_caller_comes_first() -> None:
    with pytest.raises(KeyboardInterrupt), WriteBehind(FullDisk()) as out:
        out.write(np.zeros(1 << 20, np.uint8))
        raise KeyboardInterrupt
