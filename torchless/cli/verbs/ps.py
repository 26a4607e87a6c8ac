"""``torchless ps``: the models that run in this user's processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from torchless.cli.options import Option, Verb, with_options
from torchless.cli.terminal import columns, note, printable

__all__ = ["command"]

_HELP = """List the models that are loaded in your processes: what they take, and what they do.

The processes say so themselves, once a second while they work, in files that only you can read.
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


@click.command("ps", cls=Verb, help=_HELP, short_help="List the models that run now.")
@with_options(_OPTIONS)
def command(output: str) -> None:
    from dataclasses import asdict

    from torchless.memory import format_bytes
    from torchless.status import running_models

    models = running_models()
    if output == "json":
        print(json.dumps([asdict(status) for status in models], indent=1))
        return
    if not models:
        note("No model is loaded in any of your processes.")
        return
    table = [("pid", "model", "memory", "running", "waiting", "tok/s", "loaded")]
    for status in models:
        table.append(
            (
                str(status.pid),
                printable(Path(status.model).name),
                format_bytes(status.memory_bytes),
                str(status.num_running),
                str(status.num_waiting),
                f"{status.tokens_per_second:.1f}",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(status.loaded_at)),
            )
        )
    for line in columns(table, right=[0, 2, 3, 4, 5]):
        print(line)
