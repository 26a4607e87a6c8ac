"""``--logprobs`` and ``--prompt-logprobs``: how likely the model found each token, as a table on stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from torchless.cli.options import Option
from torchless.cli.sampling_options import named_by_flags
from torchless.cli.terminal import columns, is_terminal, styled

if TYPE_CHECKING:
    from torchless.results import Completion, TokenLogprob

__all__ = ["LOGPROB_OPTIONS", "logprob_keywords", "print_logprobs"]

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


def logprob_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `LOGPROB_OPTIONS` gave out of `values`; returns the keywords for a request, checked.

    Raises:
        InvalidRequestError: a value out of range. Checked before a model is loaded.
    """
    from torchless.sampling.parameters import SamplingParams

    given = {str(option.name): values.pop(str(option.name)) for option in LOGPROB_OPTIONS}
    keywords = {name: value for name, value in given.items() if value is not None}
    with named_by_flags(LOGPROB_OPTIONS):
        SamplingParams.from_kwargs(**keywords)
    return keywords


def print_logprobs(completion: Completion) -> None:
    """Prints the tables that were asked for on stderr."""
    for title, found in (("Prompt", completion.prompt_logprobs), ("Answer", completion.logprobs)):
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
