"""``torchless quantize``: a model file with smaller weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.loading import LoadProgress, show_log
from torchless.cli.options import Option, Verb, with_options
from torchless.cli.terminal import columns, note

if TYPE_CHECKING:
    from torchless.quantization.quantize import Quantization

__all__ = ["command"]

_HELP = """Write a model with smaller weights: SRC to DST by RECIPE.

SRC is a GGUF file or a Hugging Face folder with F32, F16 or BF16 weights, DST the GGUF file to write.
Recipes: Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M, Q6_K, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ3_S,
IQ3_M, IQ4_NL, IQ4_XS, MXFP4, MXFP4_MOE, F16, BF16, F32. Instead of a recipe, --target-size or --target-bpw choose the
type of each tensor by measured error.
"""

_TYPES, _RUN = "Types", "Running"

_OPTIONS = (
    Option(
        "--tensor-type",
        "tensor_types",
        multiple=True,
        heading=_TYPES,
        metavar="PATTERN=TYPE",
        help="Type of the tensors whose names PATTERN (a regular expression) is found in. Repeatable.",
    ),
    Option("--output-tensor-type", heading=_TYPES, metavar="TYPE", help="Type of the output projection."),
    Option("--token-embedding-type", heading=_TYPES, metavar="TYPE", help="Type of the token embedding."),
    Option("--pure", is_flag=True, heading=_TYPES, help="The recipe's base type for every matrix."),
    Option(
        "--target-size", heading=_TYPES, metavar="SIZE", help="Bytes that the tensors may take, such as 4GiB."
    ),
    Option("--target-bpw", type=float, heading=_TYPES, metavar="BITS", help="Bits per weight, such as 4.5."),
    Option("--imatrix", heading=_TYPES, metavar="FILE", help="Importance matrix (see torchless imatrix)."),
    Option(
        "--requantize",
        is_flag=True,
        heading=_TYPES,
        aliases=("--allow-requantize",),
        help="Quantise tensors that are quantised already.",
    ),
    Option(
        "-t", "--threads", type=click.IntRange(min=1), heading=_RUN, metavar="N", help="Threads (all cores)."
    ),
    Option(
        "--dry-run", is_flag=True, heading=_RUN, help="Print tensors, types, sizes and errors; write nothing."
    ),
)


@click.command("quantize", cls=Verb, help=_HELP, short_help="Write a model with smaller weights.")
@with_options(
    [
        click.Argument(["src"], metavar="SRC"),
        click.Argument(["dst"], metavar="DST"),
        click.Argument(["recipe"], metavar="[RECIPE]", required=False),
    ],
    _OPTIONS,
)
def command(
    src: str, dst: str, recipe: str | None, tensor_types: tuple[str, ...], dry_run: bool, **options: Any
) -> None:
    from torchless.memory import format_bytes
    from torchless.quantization.quantize import quantize

    pairs = [_pair(text) for text in tensor_types]
    show_log()
    with LoadProgress(src, title="Quantising") as progress:
        done = quantize(src, dst, recipe, tensor_types=pairs, dry_run=dry_run, progress=progress, **options)
    if dry_run:
        for line in _table(done):
            print(line)
    else:
        note(
            f"Wrote {Path(dst)}: {format_bytes(done.num_bytes)}, {done.bits_per_weight:.2f} bits per weight."
        )
    sys.stdout.flush()


def _pair(text: str) -> tuple[str, str]:
    pattern, separator, name = text.rpartition("=")
    if not separator or not pattern or not name:
        raise click.UsageError(f"--tensor-type takes PATTERN=TYPE, such as ffn_down=Q6_K; found {text!r}")
    return pattern, name


def _table(done: Quantization) -> Iterator[str]:
    rows = [("tensor", "shape", "from", "to", "bytes", "error")]
    for tensor in done.tensors:
        error = "" if tensor.error is None else f"{tensor.error:.2e}"
        shape = " x ".join(map(str, tensor.shape))
        rows.append((tensor.name, shape, tensor.source_type, tensor.type, str(tensor.num_bytes), error))
    yield from columns(rows, right=[4, 5])
    before = sum(tensor.source_bytes for tensor in done.tensors)
    yield f"{before} bytes -> {done.num_bytes} bytes, {done.bits_per_weight:.2f} bits per weight"
