"""torchless's quantisers against llama.cpp's, for every recipe that both know: bytes, errors by tensor, and time.

One source file, both engines with as many threads, in turns. README.md in this folder tells how to read the table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import machine_facts, physical_cores

import torchless
from torchless import quants
from torchless.bench.recipes import find_recipe as synthetic_recipe
from torchless.bench.shapes import find_shape, tensor_shapes
from torchless.bench.synthetic import synthetic_metadata
from torchless.quantization.recipes import RECIPES, find_recipe
from torchless.weights.gguf import GgufSource
from torchless.weights.gguf_writer import write_gguf

Array = npt.NDArray[Any]

UNKNOWN_THERE = ("MXFP4",)
"""Recipes that llama.cpp does not have."""
SLICE_WEIGHTS = 1 << 22
SAMPLE_WEIGHTS = 1 << 20
"""Errors are taken of rows with so many weights, spread evenly over a tensor."""


@dataclass(slots=True)
class Comparison:
    """One recipe, as (ours, theirs): seconds of every round, bytes, and errors by tensor, sums of w (x' - x)^2,
    weighted as llama.cpp weighs and plain."""

    recipe: str
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    num_bytes: tuple[int, int] = (0, 0)
    other_types: list[str] = field(default_factory=list)
    other_bytes: list[str] = field(default_factory=list)
    weighted: dict[str, tuple[float, float]] = field(default_factory=dict)
    plain: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[float, str]:
        """The highest ratio of weighted errors of a tensor, and its name; (1, '') where all are equal."""
        ratios = ((ours / theirs, name) for name, (ours, theirs) in self.weighted.items() if theirs > 0)
        return max(ratios, default=(1.0, ""))


def main() -> int:
    options = parse_options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = options.model
        if source is None:
            source = Path(folder) / "source.gguf"
            write_heavy_tailed(source, options.shape, options.layers)
        found = []
        for name in options.recipes:
            found.append(compare(source, name, Path(folder), options.threads, options.rounds))
            print(as_row(found[-1]) if len(found) > 1 else HEADER + as_row(found[-1]), flush=True)
    if options.save is not None:
        figures = {
            "machine": machine_facts(),
            "threads": options.threads,
            "recipes": [vars_of(c) for c in found],
        }
        options.save.write_text(json.dumps(figures, indent=1))
    return 0


def compare(source: Path, recipe: str, folder: Path, threads: int, rounds: int) -> Comparison:
    """Writes both files, the order turning from round to round, and compares them."""
    result = Comparison(recipe)
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    runs: list[Callable[[], None]] = [
        lambda: void(torchless.quantize(source, ours, recipe, threads=threads)),
        lambda: quantize_with_llama_cpp(source, theirs, find_recipe(recipe).file_type, threads),
    ]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            (ours, theirs)[which].unlink(
                missing_ok=True
            )  # so that nobody is charged for freeing the last one
            begin = time.perf_counter()
            runs[which]()
            result.seconds[which].append(time.perf_counter() - begin)
    result.num_bytes = (ours.stat().st_size, theirs.stat().st_size)
    with GgufSource(source) as exact, GgufSource(ours) as a, GgufSource(theirs) as b:
        for name in exact.tensors:
            compare_tensor(result, name, exact, a, b)
    return result


def compare_tensor(
    result: Comparison, name: str, exact: GgufSource, ours: GgufSource, theirs: GgufSource
) -> None:
    kind = ours.tensors[name].type
    if kind != theirs.tensors[name].type:
        result.other_types.append(f"{name}: {kind}, theirs {theirs.tensors[name].type}")
        return
    if np.array_equal(ours.raw(name), theirs.raw(name)):
        return
    result.other_bytes.append(name)
    weighted, plain = np.zeros(2), np.zeros(2)
    x, *decoded = sampled(name, exact, ours, theirs)
    weights = llama_cpp_weights(kind, x)
    for i, values in enumerate(decoded):
        squares = np.square(values - x)
        weighted[i], plain[i] = (weights * squares).sum(), squares.sum()
    result.weighted[name], result.plain[name] = tuple(weighted), tuple(plain)


def sampled(name: str, *sources: GgufSource) -> list[Array]:
    """The sampled weights of a tensor in each file, as float64 (rows, columns)."""
    shape = sources[0].tensors[name].shape
    rows = math.prod(shape[:-1])
    picked = np.linspace(0, rows - 1, min(rows, max(1, SAMPLE_WEIGHTS // shape[-1]))).astype(np.int64)
    forms = [quants.by_name(source.tensors[name].type) for source in sources]
    return [
        form.decode(source.raw(name).reshape(rows, -1)[picked]).astype(np.float64)
        for form, source in zip(forms, sources, strict=True)
    ]


def llama_cpp_weights(kind: str, x: Array) -> Array:
    """What a squared error counts in llama.cpp's quantisers of a type where there is no importance matrix."""
    if kind in ("Q4_K", "Q5_K"):
        blocks = x.reshape(*x.shape[:-1], -1, 32)
        return (np.abs(blocks) + np.sqrt(np.square(blocks).mean(axis=-1, keepdims=True))).reshape(x.shape)
    return np.abs(x) if kind == "Q2_K" else np.square(x)


def quantize_with_llama_cpp(source: Path, target: Path, file_type: int, threads: int) -> None:
    """llama-quantize as a function. Raises RuntimeError where it fails."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype = threads, file_type
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp could not quantise {source} to file type {file_type}")


def write_heavy_tailed(path: Path, shape_name: str, layers: int | None) -> None:
    """A model whose weights are Student's t with 4 degrees of freedom, the tails of trained ones, in BF16."""
    shape = find_shape(shape_name)
    if layers is not None:
        shape = replace(shape, num_layers=layers)
    recipe = synthetic_recipe("BF16")

    def chunks(name: str, dims: tuple[int, ...]) -> Iterator[npt.NDArray[np.uint8]]:
        random = np.random.default_rng(zlib.crc32(name.encode()))
        step = max(1, SLICE_WEIGHTS // dims[-1])
        for begin in range(0, dims[0], step):
            count = min(step, dims[0] - begin)
            values = random.standard_normal((count, dims[-1]), np.float32)
            values /= np.sqrt(random.chisquare(4, values.shape).astype(np.float32) / 4 + np.float32(1e-3))
            yield quants.by_name("BF16").encode(values * np.float32(dims[-1] ** -0.5)).reshape(-1)

    tensors = []
    for name, dims in tensor_shapes(shape).items():
        if len(dims) > 1:
            tensors.append((name, dims, "BF16", chunks(name, dims)))
        else:
            tensors.append((name, dims, "F32", iter([np.ones(dims[0], "<f4").view(np.uint8)])))
    write_gguf(path, synthetic_metadata(shape, recipe, f"heavy-tailed {shape_name}"), iter(tensors))


HEADER = (
    "| recipe | MB | tensors of other bytes | weighted error, all / worst tensor "
    "| plain error | s, ours | theirs | speed |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def as_row(found: Comparison) -> str:
    """One line of the table; a line below it names tensors whose type differs."""
    weighted, plain = total_ratio(found.weighted), total_ratio(found.plain)
    errors = f"{weighted:.3f} / {found.worst[0]:.3f} | {plain:.3f}" if found.other_bytes else "equal | equal"
    ours, theirs = (statistics.median(seconds) for seconds in found.seconds)
    ratios = [b / a for a, b in zip(*found.seconds, strict=True)]
    spread = f" ({min(ratios):.2f} .. {max(ratios):.2f})" if len(ratios) > 1 else ""
    row = (
        f"| {found.recipe} | {found.num_bytes[0] / 1e6:.0f} | {len(found.other_bytes)} | {errors} "
        f"| {ours:.2f} | {theirs:.2f} | {statistics.median(ratios):.2f}{spread} |"
    )
    return row + "".join(f"\n{found.recipe}: other type: {text}" for text in found.other_types)


def total_ratio(errors: dict[str, tuple[float, float]]) -> float:
    ours, theirs = (sum(pair[i] for pair in errors.values()) for i in (0, 1))
    return ours / theirs if theirs > 0 else 1.0


def vars_of(found: Comparison) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Comparison.__slots__}


def void(_: object) -> None:
    pass


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", type=Path, nargs="?", help="a GGUF file in F32, F16 or BF16; left out: --shape"
    )
    parser.add_argument("--shape", default="tinyllama-1.1b", help="heavy-tailed weights of these shapes")
    parser.add_argument("--layers", type=int, help="layers of --shape, where not all")
    parser.add_argument("--recipes", help="comma-separated; all that both know if left out")
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("-r", "--rounds", type=int, default=1, help="rounds; medians are printed")
    parser.add_argument("--folder", type=Path, help="where the files go while it runs")
    parser.add_argument("--save", type=Path, help="every figure, as JSON")
    options = parser.parse_args()
    known = [name for name in RECIPES if name not in UNKNOWN_THERE]
    options.recipes = [find_recipe(r).name for r in options.recipes.split(",")] if options.recipes else known
    try:
        import llama_cpp
    except ImportError:
        parser.error("it needs llama.cpp's quantiser: install llama-cpp-python (benchmarks/README.md)")
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    options.silent = silent  # kept alive as long as the library may call it
    return options


if __name__ == "__main__":
    sys.exit(main())
