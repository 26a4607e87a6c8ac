"""``torchless convert``: a model in another file format."""

from __future__ import annotations

import click

from torchless.cli.adapter_options import lora_keyword, lora_options
from torchless.cli.loading import LoadProgress, show_log
from torchless.cli.options import Option, Verb, with_options
from torchless.cli.terminal import note

__all__ = ["command"]

_HELP = """Write a model in another file format: SRC to DST.

SRC is a Hugging Face folder (safetensors) or a GGUF file, any part of a split one. DST is a file name ending in
.gguf, or a new folder for safetensors, configuration and tokenizer. From a format to itself, parts are merged or
made anew. llama.cpp and transformers read what is written. SRC may be a LoRA adapter of the peft library; DST is then
a GGUF adapter.
"""

_FORM, _RUN = "Form", "Running"

_OPTIONS = (
    Option(
        "--type",
        "type_name",
        default="keep",
        show_default=True,
        metavar="TYPE",
        heading=_FORM,
        aliases=("--outtype",),
        help="F32, F16, BF16, or for GGUF a recipe such as Q4_K_M; keep leaves weights as they are.",
    ),
    Option(
        "--split-max-size",
        metavar="SIZE",
        heading=_FORM,
        help="Split into files of at most SIZE, such as 2G or 500M.",
    ),
    Option(
        "--config",
        metavar="FILE",
        heading=_FORM,
        help="config.json of a single safetensors file, if it lies elsewhere.",
    ),
    *lora_options("Merge a LoRA adapter into the weights"),
    Option(
        "--base",
        metavar="MODEL",
        heading="Adapters",
        help="The model that an adapter belongs to, if the adapter does not name a folder that is there.",
    ),
    Option(
        "-t", "--threads", type=click.IntRange(min=1), heading=_RUN, metavar="N", help="Threads (all cores)."
    ),
)


@click.command("convert", cls=Verb, help=_HELP, short_help="Turn safetensors into GGUF, or back.")
@with_options(
    [click.Argument(["src"], metavar="SRC"), click.Argument(["dst"], metavar="DST")],
    _OPTIONS,
)
def command(
    src: str,
    dst: str,
    type_name: str,
    split_max_size: str | None,
    config: str | None,
    lora: tuple[str, ...],
    lora_scaled: tuple[str, ...],
    base: str | None,
    threads: int | None,
) -> None:
    from torchless.conversion.convert import convert
    from torchless.memory import format_bytes

    show_log()
    with LoadProgress(src, title="Converting") as progress:
        paths = convert(
            src,
            dst,
            type=type_name,
            split_max_size=split_max_size,
            config=config,
            **lora_keyword({"lora": lora, "lora_scaled": lora_scaled}),
            base=base,
            threads=threads,
            progress=progress,
        )
    size = format_bytes(sum(path.stat().st_size for path in paths))
    files = "" if len(paths) == 1 else f" and {len(paths) - 1} more"
    note(f"Wrote {paths[0]}{files}: {size}.")
