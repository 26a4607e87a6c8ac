"""Options that say what the text must match, which verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from torchless.cli.options import Option
from torchless.cli.prompt import check_argument, read_text_file

__all__ = ["CONSTRAINT_OPTIONS", "constraint_keywords"]

_HEADING = "What the text must match (docs/constraints.md)"

CONSTRAINT_OPTIONS = (
    Option(
        "-j",
        "--json-schema",
        "schema",
        metavar="FILE|JSON",
        heading=_HEADING,
        aliases=("-jf", "--json-schema-file"),
        help="JSON that is valid under a schema.",
    ),
    Option("--json", "json", is_flag=True, heading=_HEADING, help="A JSON object."),
    Option(
        "--grammar",
        metavar="FILE|TEXT",
        heading=_HEADING,
        aliases=("--grammar-file",),
        help="A grammar in GBNF or Lark.",
    ),
    Option("--regex", metavar="EXPRESSION", heading=_HEADING, help="A regular expression, as a whole."),
    Option(
        "--choice",
        "choices",
        multiple=True,
        metavar="TEXT",
        heading=_HEADING,
        help="One of several texts; give each by a --choice of its own.",
    ),
)


def constraint_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `CONSTRAINT_OPTIONS` gave out of `values`; returns the keyword for a request, or nothing.

    Raises:
        GrammarError: it cannot be enforced. Checked before a model is loaded.
        InvalidRequestError: a file cannot be read.
        UnsupportedError: the library for it is not installed.
    """
    given = {str(option.name): values.pop(str(option.name)) for option in CONSTRAINT_OPTIONS}
    set_ones = {name: value for name, value in given.items() if value}
    if len(set_ones) > 1:
        named = [_flag(option) for option in CONSTRAINT_OPTIONS if option.name in set_ones]
        raise click.UsageError(
            f"a text can follow one of {' and '.join(named)} only; put both into one grammar"
        )
    if not set_ones:
        return {}
    from torchless.constraints.requests import take_grammar

    ((name, value),) = set_ones.items()
    if name == "schema":
        value = value if value.lstrip().startswith("{") else read_text_file(value)
    elif name == "grammar":
        value = value if _is_grammar(value) else read_text_file(value)
    elif name == "choices":
        value = list(value)
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_argument(text)
    grammar = take_grammar({name: value})
    if (
        grammar is not None and name != "grammar"
    ):  # a grammar may name control tokens, which only the model knows
        grammar.check()
    return {name: value}


def _flag(option: Option) -> str:
    return next(flag for flag in option.opts if flag.startswith("--"))


def _is_grammar(value: str) -> bool:
    """Whether this is a grammar rather than the name of a file."""
    try:
        if Path(value).expanduser().exists():
            return False
    except (OSError, ValueError):  # too long for a name
        return True
    return "\n" in value or ":" in value
