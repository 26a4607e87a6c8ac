"""``--logprobs`` and ``--prompt-logprobs``: how likely the model found each token, as a table on stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from torchless.cli.options import Option
from torchless.cli.terminal import columns, is_terminal, styled

if TYPE_CHECKING:
    from torchless.results import Completion, TokenLogprob

__all__ = ["LOGPROB_OPTIONS", "print_logprobs"]

_HEADING = "Log probabilities"

LOGPROB_OPTIONS = (
    Option(
        "--logprobs",
        type=int,
        metavar="K",
        heading=_HEADING,
        help="Show how likely each token was, and the K likeliest ones in its place (0 to 20), on stderr.",
    ),
    Option(
        "--prompt-logprobs",
        type=int,
        metavar="K",
        heading=_HEADING,
        help="The same for the tokens of the prompt.",
    ),
)


def print_logprobs(completions: Sequence[Completion]) -> None:
    """Prints the tables that were asked for about the answers to one prompt on stderr."""
    tables = [("Prompt", completion.prompt_logprobs) for completion in completions]
    for i, completion in enumerate(completions, 1):
        tables.append(("Answer" if len(completions) == 1 else f"Answer {i}", completion.logprobs))
    for title, found in tables:
        if found is None:
            continue
        lines = _table(title, found)
        click.echo("\n".join(["", *lines] if is_terminal(sys.stderr) else lines), err=True)


def _table(title: str, found: Sequence[TokenLogprob | None]) -> list[str]:
    """A row for each token, and a last line that says how likely the whole text is."""
    known = [entry for entry in found if entry is not None]
    head = [title, "log prob", "share", "likeliest in its place"]
    rows = [_row(entry) for entry in known]
    lines = columns([head, *rows], right=[1, 2])
    lines[0] = styled(lines[0], sys.stderr, bold=True)
    if known:
        total = sum(entry.logprob for entry in known)
        mean = total / len(known)
        lines.append(f"together {total:.4f}, {mean:.4f} a token: perplexity {math.exp(min(-mean, 700)):.4f}")
    return lines


def _row(entry: TokenLogprob) -> list[str]:
    others = "  ".join(f"{_quoted(other.text)} {_share(other.logprob)}" for other in entry.top)
    return [_quoted(entry.text), f"{round(entry.logprob, 4) + 0.0:.4f}", _share(entry.logprob), others]


def _quoted(text: str) -> str:
    """In quotation marks, so that spaces show; line ends and the like as escapes."""
    return (
        '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'
    )


def _share(logprob: float) -> str:
    probability = math.exp(logprob)
    return f"{probability:.2%}" if probability >= 5e-5 else "<0.01%"
