"""Options with headings and aliases, and commands that list them so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

__all__ = ["Option", "Verb", "with_options", "words_argument"]

_OTHER = "Options"  # the heading of what has none; comes last

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Option(click.Option):
    """An option with a heading, and with aliases that work but are not listed."""

    def __init__(
        self, *names: str, heading: str = _OTHER, aliases: Sequence[str] = (), **attributes: Any
    ) -> None:
        super().__init__([*names, *aliases], **attributes)
        self.heading = heading
        self._listed = [name for name in self.opts if name not in aliases]

    @contextmanager
    def _without_aliases(self) -> Iterator[None]:
        everything, self.opts = self.opts, self._listed
        try:
            yield
        finally:
            self.opts = everything

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        with self._without_aliases():
            return super().get_help_record(ctx)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        with self._without_aliases():
            return super().get_error_hint(ctx)


class Verb(click.Command):
    """A verb's command: its options are listed under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        for option in options:
            record = option.get_help_record(ctx)
            if record is not None:
                headings.setdefault(getattr(option, "heading", _OTHER), []).append(record)
        for heading in sorted(headings, key=lambda heading: heading == _OTHER):
            records = headings[heading]
            with formatter.section(heading):
                formatter.write_dl(records)


def with_options(*groups: Sequence[click.Parameter]) -> Callable[[_Command], _Command]:
    """A decorator that gives a command these parameters, in this order."""

    def decorate(function: _Command) -> _Command:
        parameters = [parameter for group in groups for parameter in group]
        function.__click_params__ = parameters[::-1]  # type: ignore[attr-defined]
        return function

    return decorate


def words_argument(metavar: str) -> click.Argument:
    """The words of a verb: a model and a text, told apart by `prompt.split_words`."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]

    return click.Argument(["words"], nargs=-1, metavar=metavar, shell_complete=complete)
