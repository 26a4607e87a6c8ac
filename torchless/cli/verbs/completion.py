"""``torchless completion``: the script that teaches a shell to complete our verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from torchless.cli.options import Verb, with_options

__all__ = ["command"]

_HELP = """Print a script that completes verbs, options and files with the Tab key.

\b
bash:  eval "$(torchless completion bash)"           in ~/.bashrc
zsh:   eval "$(torchless completion zsh)"            in ~/.zshrc
fish:  torchless completion fish | source            in ~/.config/fish/config.fish
"""


@click.command("completion", cls=Verb, help=_HELP, short_help="Print a script for Tab in your shell.")
@with_options([click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))])
def command(shell: str) -> None:
    from torchless.cli.program import COMPLETION_VARIABLE, program

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion is known for {shell}")
    print(script(program, {}, "torchless", COMPLETION_VARIABLE).source())
