"""What decides, beside the tokens, which bytes a page of keys and values holds: hashed, so that none is mistaken.

A page on disk outlives its process, so all of it counts: the model's files, what was made of them at load, the plan,
the number formats, and the code that computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from hashlib import blake2b
from importlib import import_module
from pathlib import Path

import numpy as np

from torchless import __version__
from torchless.adapters.open import ScaledPath
from torchless.backends.base import ExecutorOptions
from torchless.plan import Plan
from torchless.weights.source import WeightSource

__all__ = ["page_fingerprint"]

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 4096


def page_fingerprint(
    source: WeightSource,
    plan: Plan,
    options: ExecutorOptions,
    *,
    backend: str,
    quant: str | None,
    adapters: SequenceOf[ScaledPath],
) -> bytes:
    """32 bytes that differ where pages may.

    Of the files of model and adapters names, sizes, times of change and samples count, not all bytes: reading those
    would take as long as a prompt. A file that was copied or fetched anew thus counts as another.

    Args:
        source: the model as it was opened.
        plan: what is computed, adapters included.
        quant: the recipe by which its weights are quantised at load.
        adapters: files or folders with their scales.
    """
    digest = blake2b(digest_size=32)

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(f"torchless {__version__} {backend} numpy {np.__version__}".encode())
    for path in _code(backend):
        add(path.read_bytes())
    if backend == "cpu":
        from torchless.backends.cpu.extension import load_extension

        add(load_extension().isa().encode())
    add(repr((options.kv_type, options.activations, options.fast, quant)).encode())
    add(repr(plan.ops).encode())
    files = _files(source)
    for adapter, scale in adapters:
        add(repr(scale).encode())
        files += [adapter] if adapter.is_file() else sorted(adapter.glob("adapter*"))
    for path in files:
        found = path.stat()
        add(repr((path.name, found.st_size, found.st_mtime_ns)).encode())
        for sample in _samples(path, found.st_size):
            add(sample)
    return digest.digest()


def _code(backend: str) -> Iterator[Path]:
    """Files with the code that computes: a build is one promise, another build another."""
    folder = Path(str(import_module(f"torchless.backends.{backend}").__file__)).parent
    yield from sorted(folder.glob("*.py"))
    if backend == "cpu":
        from torchless.backends.cpu.extension import load_extension

        yield Path(str(load_extension().__file__))


def _files(source: WeightSource) -> list[Path]:
    """The files that a model may consist of."""
    path = source.path
    if path.is_file() and source.format == "gguf" and "split.count" not in source.metadata:
        return [path]
    folder = path if path.is_dir() else path.parent
    kinds = {path.suffix} if path.is_file() and source.format == "gguf" else {".safetensors", ".json"}
    return sorted(file for file in folder.iterdir() if file.suffix in kinds and file.is_file())


def _samples(path: Path, num_bytes: int) -> Iterator[bytes]:
    """Parts of a file, the first and the last among them."""
    last = max(num_bytes - _SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for number in range(_NUM_SAMPLES):
            file.seek(last * number // (_NUM_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)
