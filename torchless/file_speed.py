"""How fast a model runs whose weights stay in the file: measured on a sample of them, when it is loaded.

Two things may deliver file pages: the system's cache of them, if memory holds them all once they were read, or the
storage. Both are measured on the same sample, which is dropped from the cache before the first of two passes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torchless.memory import available_memory, format_bytes

if TYPE_CHECKING:
    from torchless.backends.base import Executor
    from torchless.backends.cpu.residency import MappedMatrix

__all__ = ["FileSpeed", "measure_file_speed"]

_SAMPLE_BYTES = 64 << 20
_PIECE_BYTES = 4 << 20
_MOST_SECONDS = 1.0
_STRIDE = 37  # a prime: matrices in turn from all over the model
_READ_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class FileSpeed:
    """What decoding a token costs when weights stay in the file. Rates are bytes per second.

    Attributes:
        file_bytes: weights that stay in the file, and `packed_bytes` of those in memory.
        file_bytes_per_token: what a token reads of the former: less than all where it chooses experts.
        cache_rate: of multiplying weights that lie in the system's page cache.
        storage_rate: of those that do not; None where the sample would not leave the cache.
        memory_rate: of reading packed weights; None without any.
        is_cached: whether memory is left for all of `file_bytes` in the page cache, from the second token on.
    """

    file_bytes: int
    packed_bytes: int
    file_bytes_per_token: int
    cache_rate: float
    storage_rate: float | None
    memory_rate: float | None
    is_cached: bool

    @property
    def tokens_per_second(self) -> float:
        """Of decoding one sequence, attention aside."""
        rate = self.cache_rate if self.is_cached or self.storage_rate is None else self.storage_rate
        seconds = self.file_bytes_per_token / rate
        if self.memory_rate is not None:
            seconds += self.packed_bytes / self.memory_rate
        return 1 / seconds

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}

    def __str__(self) -> str:
        packed = f" ({format_bytes(self.packed_bytes)} are loaded)" if self.packed_bytes else ""
        storage = "unknown" if self.storage_rate is None else f"{format_bytes(int(self.storage_rate))}/s"
        cache = f"{format_bytes(int(self.cache_rate))}/s"
        if self.is_cached:
            where = f"from the page cache ({cache} measured); the first pass reads the storage ({storage})"
        elif self.storage_rate is None:
            where = f"at {cache}, measured in the page cache, which memory is too small for: the storage may be slower"
        else:
            where = f"from the storage ({storage} measured), since memory is too small to keep them cached"
        return (
            f"{format_bytes(self.file_bytes)} of weights stay in the file{packed}: about "
            f"{self.tokens_per_second:.2g} tokens/s. Each reads {format_bytes(self.file_bytes_per_token)} {where}."
        )


def measure_file_speed(executor: Executor) -> FileSpeed | None:
    """Measures with the executor's own threads and kernels, for a second or two at most.

    None where all weights are packed.
    """
    mapped: list[MappedMatrix] = getattr(executor, "mapped", [])
    if not mapped:
        return None
    sample = _sample(mapped)
    is_dropped = _drop_from_cache(sample)
    first, sample = _rate(executor, sample)
    again, _ = _rate(executor, sample)
    sizes = executor.memory_bytes()
    file_bytes = sum(matrix.piece.num_bytes for matrix in mapped)
    left = available_memory()
    memory_rate = None
    if sizes["weights"]:
        from torchless.backends.cpu.extension import load_extension

        threads = executor.options.num_threads
        memory_rate = float(load_extension().measure_read_bandwidth(threads, _READ_BYTES))
    return FileSpeed(
        file_bytes=file_bytes,
        packed_bytes=sizes["weights"],
        file_bytes_per_token=round(sum(matrix.share * matrix.piece.num_bytes for matrix in mapped)),
        cache_rate=max(first, again),
        storage_rate=min(first, again) if is_dropped else None,
        memory_rate=memory_rate,
        is_cached=left is None or file_bytes <= left.num_bytes,
    )


class _Part(NamedTuple):
    """Tiles of a matrix."""

    matrix: MappedMatrix
    begin: int
    end: int

    @property
    def offset(self) -> int:
        """Where they lie in the file."""
        return self.matrix.piece.offset + self.begin * self._tile_bytes

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return min((self.end - self.begin) * self._tile_bytes, self.matrix.piece.num_bytes)

    @property
    def _tile_bytes(self) -> int:
        return -(-self.matrix.piece.num_bytes // self.matrix.num_tiles)


def _sample(mapped: Sequence[MappedMatrix]) -> list[_Part]:
    """Parts of some megabytes each, from matrices all over the model, no two of one matrix."""
    parts: list[_Part] = []
    num_bytes = 0
    step = _STRIDE if len(mapped) % _STRIDE else 1
    for i in range(len(mapped)):
        matrix = mapped[i * step % len(mapped)]
        tile_bytes = -(-matrix.piece.num_bytes // matrix.num_tiles)
        count = min(matrix.num_tiles, max(1, _PIECE_BYTES // tile_bytes))
        parts.append(_Part(matrix, 0, count))
        num_bytes += parts[-1].num_bytes
        if num_bytes >= _SAMPLE_BYTES:
            break
    return parts


def _drop_from_cache(sample: Sequence[_Part]) -> bool:
    """Lets the system forget the pages of a sample; whether it did. Pages that were just written may stay."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    num_gone = 0
    for part in sample:
        with part.matrix.piece.file.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), part.offset, part.num_bytes, os.POSIX_FADV_DONTNEED)
            try:
                os.preadv(file.fileno(), [bytearray(1)], part.offset + part.num_bytes // 2, os.RWF_NOWAIT)
            except BlockingIOError:
                num_gone += 1
            except OSError:  # a file system that cannot tell
                return False
    return num_gone > len(sample) // 2


def _rate(executor: Any, sample: Sequence[_Part]) -> tuple[float, list[_Part]]:
    """Bytes per second, and the parts that were read before time was up."""
    start = time.perf_counter()
    done: list[_Part] = []
    for part in sample:
        executor.read_mapped(part.matrix, part.begin, part.end)
        done.append(part)
        if time.perf_counter() - start > _MOST_SECONDS:
            break
    return sum(part.num_bytes for part in done) / (time.perf_counter() - start), done
