"""The program `torchless`: finds the verb's file, or reads ``torchless MODEL PROMPT`` as ``run``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from torchless import __version__
from torchless.cli.discovery import names_in
from torchless.cli.prompt import looks_like_path

__all__ = ["Program", "program", "run_program"]

_EPILOG = """\b
Examples:
  torchless run "Once upon a time"              the built-in model tells a story
  torchless run model.gguf "Why is the sky blue?"
  torchless chat model.gguf
  cat notes.txt | torchless run model.gguf "Summarise this:"
  torchless MODEL PROMPT                        short for: torchless run MODEL PROMPT"""

COMPLETION_VARIABLE = "_TORCHLESS_COMPLETE"


class Program(click.Group):
    """A group whose verbs are the modules in ``verbs/``: each defines `command`, a `click.Command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return names_in("cli/verbs")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"torchless.cli.verbs.{cmd_name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        if not ctx.resilient_parsing and self._means_run(ctx, args[0]):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(self._unknown(ctx, args[0]), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Verbs"):
            formatter.write_dl([(name, item.get_short_help_str(90)) for name, item in commands if item])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and, for the short form, files."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]

    def _means_run(self, ctx: click.Context, first: str) -> bool:
        """Whether the command line starts with a model, or with options of ``run``."""
        if first.startswith("-") and first != "-":
            own = {name for option in self.get_params(ctx) for name in option.opts}
            return first.split("=")[0] not in own
        return first not in self.list_commands(ctx) and (looks_like_path(first) or Path(first).exists())

    def _unknown(self, ctx: click.Context, word: str) -> str:
        verbs = self.list_commands(ctx)
        if any(character.isspace() for character in word):
            return (
                f"{word!r} is neither a verb nor a file; to continue a text: {ctx.command_path} run {word!r}"
            )
        near = get_close_matches(word, verbs, n=2, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?" if near else f"the verbs are {', '.join(verbs)}"
        )
        return f"no verb {word!r}, and no such file; {hint}"


@click.command(
    cls=Program,
    epilog=_EPILOG,
    options_metavar="",
    subcommand_metavar="VERB [OPTIONS] ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="torchless")
def program() -> None:
    """Large language models without PyTorch."""


def run_program(arguments: Sequence[str]) -> int:
    """Parses and runs a command line; returns the exit status, and raises what the verb raises."""
    if os.environ.get(COMPLETION_VARIABLE):  # the shell asks for its script, or what could come next
        program.main(list(arguments), prog_name="torchless", complete_var=COMPLETION_VARIABLE)
    try:
        with program.make_context("torchless", list(arguments)) as context:
            program.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0
