"""Random damage to GGUF files, and the check that a reader meets it with the right errors only."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gguf_building import ALL_TYPES, GgufBuilder

from torchless.errors import FormatError, UnsupportedError
from torchless.weights.gguf import GgufSource

_NASTY = (
    0,
    1,
    2,
    7,
    8,
    9,
    13,
    31,
    64,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


@dataclass(slots=True)
class FuzzReport:
    """What came out of a run: how many files were opened or refused, the slowest one, and peak memory."""

    opened: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0


def base_files() -> list[bytes]:
    """Small valid files that have everything: all types, nested arrays, several tensors, both byte orders."""
    files = []
    for order, version, alignment in (("<", 3, 32), (">", 3, 32), ("<", 2, 32), ("<", 3, 8)):
        builder = GgufBuilder(order, version, alignment)
        builder.key("general.architecture", 8, "llama").key("general.alignment", 4, alignment)
        for key, item in ALL_TYPES.items():
            builder.key(key, *item)
        builder.tensor("a", [32, 2], 2, bytes(range(36))).tensor("b", [4, 1, 2], 0, bytes(range(32)))
        builder.tensor("c", [], 1, bytes(2)).tensor("d", [256], 12, bytes(144)).tensor("e", [0, 3], 30, b"")
        files.append(builder.build())
        files.append(GgufBuilder(order, version, alignment).build())
    return files


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes: bits, bytes, numbers of interesting size, cuts, copies, insertions."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out)) if out else 0
        kind = rng.randrange(8)
        if kind == 0 and out:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[place] = rng.randrange(256)
        elif kind in (2, 3, 4):
            width, order = rng.choice((4, 8)), rng.choice(("little", "big"))
            value = rng.choice((*_NASTY, len(out), rng.getrandbits(64))) % (1 << 8 * width)
            out[place : place + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 5:
            del out[place if rng.random() < 0.5 else len(out) :]
            del out[place : place + rng.randrange(16)]
        elif kind == 6:
            start = rng.randrange(len(out) + 1)
            out[place:place] = out[start : start + rng.randrange(64)]
        else:
            out[place:place] = rng.randbytes(rng.randrange(12))
    return bytes(out)


def fuzz(count: int, seed: int) -> FuzzReport:
    """Opens and reads `count` damaged files; any exception but FormatError and UnsupportedError is a bug."""
    rng = random.Random(seed)
    bases = base_files()
    report = FuzzReport()
    memory = os.memfd_create("fuzz")  # A disk takes milliseconds to shorten a file, a hundred times the test.
    path = Path(f"/proc/self/fd/{memory}")
    begin = time.perf_counter()
    for number in range(count):
        data = mutate(bases[number % len(bases)], rng)
        os.ftruncate(memory, 0)
        os.pwrite(memory, data, 0)
        start = time.perf_counter()
        try:
            read_everything(path)
            report.opened += 1
        except (FormatError, UnsupportedError) as error:
            assert str(path) in str(error) or isinstance(error, UnsupportedError), error
            report.refused += 1
        except BaseException as error:
            raise AssertionError(f"mutation {number} of seed {seed}: {error!r}; file {data.hex()}") from error
        report.slowest_s = max(report.slowest_s, time.perf_counter() - start)
    os.close(memory)
    report.seconds = time.perf_counter() - begin
    report.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return report


def read_everything(path: Path) -> None:
    """Touches every metadata value and every byte of tensor data."""
    with GgufSource(path) as source:
        for value in source.metadata.values():
            _touch(value)
        for name, info in source.tensors.items():
            assert source.raw(name).nbytes == info.num_bytes
            int(source.raw(name).sum())
            source.drop_pages(name)


def _touch(value: object) -> None:
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        for item in value:
            _touch(item)


@contextmanager
def address_space_limit(extra_bytes: int) -> Iterator[None]:
    """Makes an allocation of more than `extra_bytes` in all fail with MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
