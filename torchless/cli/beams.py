"""``--beams``: the likeliest answer instead of one that is picked token by token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from torchless.cli.options import Option
from torchless.cli.sampling_options import named_by_flags

__all__ = ["BEAM_OPTIONS", "beam_keywords"]

_HEADING = "Beam search (docs/sampling.md)"

BEAM_OPTIONS = (
    Option(
        "--beams",
        type=int,
        metavar="N",
        heading=_HEADING,
        aliases=("--num-beams",),
        help="Follow N beginnings and print the likeliest answer, or as many as --answers says.",
    ),
    Option(
        "--length-penalty",
        type=float,
        metavar="X",
        heading=_HEADING,
        help="Compare answers by log probability over length to the power of X; below 0 prefers short ones. [1]",
    ),
    Option(
        "--early-stopping",
        type=click.Choice(["yes", "no", "never"]),
        heading=_HEADING,
        help="End with N whole answers (yes), once no beam as long as now would beat them (no), or none of any "
        "length (never). [no]",
    ),
)

_ALLOWED = ("max_tokens", "n")


def beam_keywords(
    values: dict[str, Any], asked: dict[str, Any], groups: Iterable[Sequence[Option]]
) -> dict[str, Any] | None:
    """Takes what `BEAM_OPTIONS` gave out of `values`; returns the keywords of `LLM.beam_search`, None for none.

    Args:
        asked: keywords of the request that other options gave.
        groups: those options.

    Raises:
        click.UsageError: they do not go together.
        InvalidRequestError: a value out of range. Both before a model is loaded.
    """
    given = {str(option.name): values.pop(str(option.name)) for option in BEAM_OPTIONS}
    keywords = {name: value for name, value in given.items() if value is not None}
    if "beams" not in keywords:
        for name in keywords:
            raise click.UsageError(f"--{name.replace('_', '-')} is about a beam search: say --beams N, too")
        return None
    named = {option.name: option for group in groups for option in group}
    for name in asked:
        if name not in _ALLOWED:
            flag = next(flag for flag in named[name].opts if flag.startswith("--"))
            raise click.UsageError(f"{flag} has no meaning beside --beams, which picks no token by itself")
    if "early_stopping" in keywords:
        keywords["early_stopping"] = {"yes": True, "no": False, "never": "never"}[keywords["early_stopping"]]
    keywords.update(asked)
    from torchless.beam_search import BeamSettings

    with named_by_flags(BEAM_OPTIONS):
        BeamSettings(**keywords)
    return keywords
