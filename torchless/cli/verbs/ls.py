"""``torchless ls``: the models that were downloaded."""

from __future__ import annotations

import json
import time

import click

from torchless.cli.options import Option, Verb, with_options
from torchless.cli.terminal import columns, note, printable

__all__ = ["command"]

_HELP = """List the models that were downloaded, by the names that load them.

They lie in the Hugging Face hub's cache (HF_HOME) and, for other servers, in torchless' own.
"""

_OPTIONS = (
    Option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the list.",
    ),
)


@click.command("ls", cls=Verb, help=_HELP, short_help="List downloaded models.")
@with_options(_OPTIONS)
def command(output: str) -> None:
    from torchless.hub.cache import cached_models
    from torchless.memory import format_bytes

    models = cached_models()
    if output == "json":
        rows = [
            {
                "name": item.name,
                "path": str(item.path),
                "num_bytes": item.num_bytes,
                "modified": item.modified,
            }
            for item in models
        ]
        print(json.dumps(rows, indent=1))
        return
    if not models:
        note("No models were downloaded; torchless pull NAME does.")
        return
    table = [("name", "size", "downloaded")]
    for item in models:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.modified))
        table.append((printable(item.name), format_bytes(item.num_bytes), when))
    for line in columns(table, right=[1]):
        print(line)
