"""``torchless imatrix``: which columns of a model's matrices matter, measured on a text."""

from __future__ import annotations

from pathlib import Path

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.options import Option, Verb, with_options
from torchless.cli.quality import StatusLine, read_text
from torchless.cli.terminal import note

__all__ = ["command"]

_HELP = """Measure how strongly a model uses the columns of its matrices, for torchless quantize --imatrix.

MODEL is a GGUF file or a Hugging Face folder, TEXT a text file of what the model shall be good at; - is standard
input. The text is run in chunks of --ctx tokens (512). The file that is written is llama.cpp's: a GGUF file of
sums of squared activations. The forward pass is exact and slow, and takes 8 bytes of memory per weight.
"""

_OPTIONS = (
    Option("-o", "--output", default="imatrix.gguf", show_default=True, metavar="FILE", help="The file to write."),
    Option(
        "-c", "--ctx", "context", type=click.IntRange(min=4), default=512, show_default=True, metavar="N",
        aliases=("--ctx-size",), help="Tokens of a chunk.",
    ),
    Option("--chunks", type=click.IntRange(min=1), metavar="N", help="Run only the first N chunks."),
    Option("--process-output", is_flag=True, help="Measure the output projection too."),
)  # fmt: skip


@click.command("imatrix", cls=Verb, help=_HELP, short_help="Measure which columns of a model matter.")
@with_options(
    [click.Argument(["model"], metavar="MODEL"), click.Argument(["text"], metavar="TEXT")], _OPTIONS
)
def command(
    model: str, text: str, output: str, context: int, chunks: int | None, process_output: bool
) -> None:
    from torchless.quantization.importance import write_importance
    from torchless.quantization.importance_run import imatrix

    status = StatusLine()
    try:
        with SignalWatch(status.clear):
            matrix = imatrix(
                model, read_text(text), context=context, max_chunks=chunks, dataset=Path(text).name,
                process_output=process_output,
                progress=lambda done, total: status.show(f"{done} of {total} chunks"),
            )  # fmt: skip
    finally:
        status.clear()
    write_importance(output, matrix)
    note(
        f"Wrote {output}: {len(matrix.means)} matrices, {matrix.chunks} chunks of {matrix.chunk_tokens} tokens."
    )
