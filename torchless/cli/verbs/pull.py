"""``torchless pull``: a model from the Hugging Face hub, or from a URL, into the cache."""

from __future__ import annotations

import click

from torchless.cli.interrupts import SignalWatch
from torchless.cli.loading import LoadProgress, show_log
from torchless.cli.options import Verb, with_options

__all__ = ["command"]

_HELP = """Download a model and print its path.

NAME is org/repo or org/repo:QUANT on the Hugging Face hub (such as org/repo:Q4_K_M; org/repo@REVISION:QUANT for
another revision), or a URL. Files go into the hub's own cache (HF_HOME); HF_TOKEN opens private repositories,
HF_HUB_OFFLINE=1 uses the cache only. What came whole before Ctrl-C is kept; a file from a URL goes on where it stopped,
one from the hub too unless the installed huggingface_hub begins it anew.
"""


@click.command("pull", cls=Verb, help=_HELP, short_help="Download a model.")
@with_options([click.Argument(["name"], metavar="NAME")])
def command(name: str) -> None:
    from torchless.errors import ModelNotFoundError
    from torchless.hub import local_path, parse_name

    if parse_name(name) is None:
        raise ModelNotFoundError(f"{name}: a path, not a name; expected org/repo, org/repo:QUANT or a URL")
    show_log()
    progress = LoadProgress(name, title="Downloading")
    with SignalWatch(progress.abandon), progress:
        path = local_path(name, progress)
    print(path)
