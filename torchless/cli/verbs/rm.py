"""``torchless rm``: a downloaded model out of the cache."""

from __future__ import annotations

import click

from torchless.cli.options import Verb, with_options
from torchless.cli.terminal import note

__all__ = ["command"]

_HELP = """Delete a downloaded model.

NAME is as torchless ls prints it; org/repo without a quantisation deletes all of that repository's files.
"""


@click.command("rm", cls=Verb, help=_HELP, short_help="Delete a downloaded model.")
@with_options([click.Argument(["name"], metavar="NAME")])
def command(name: str) -> None:
    from torchless.hub.cache import remove_model
    from torchless.memory import format_bytes

    for model in remove_model(name):
        note(f"Deleted {model.name}, {format_bytes(model.num_bytes)}.")
