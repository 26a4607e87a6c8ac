"""The command line's ways to ask for a gap to be filled."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from torchless.cli.options import Option
from torchless.cli.prompt import check_argument, read_stdin, read_text_file
from torchless.errors import InvalidRequestError

__all__ = ["GAP_MARK", "INFILL_OPTIONS", "Gap", "gap_of"]

GAP_MARK = "<FILL_ME>"
"""Stands in a file for the gap, as transformers has it."""

_HEADING = "Filling a gap"

INFILL_OPTIONS = (
    Option(
        "--fim",
        nargs=2,
        metavar="PREFIX SUFFIX",
        heading=_HEADING,
        aliases=("--infill",),
        help="Write what stands between two texts, with a model that was trained to (most models of code).",
    ),
    Option(
        "--fim-file",
        metavar="FILE",
        heading=_HEADING,
        help=f"The same for a file whose gap is marked {GAP_MARK}; - is standard input.",
    ),
    Option(
        "--fim-order",
        type=click.Choice(["psm", "spm", "spm2"], case_sensitive=False),
        heading=_HEADING,
        help="How the model is asked (docs/infill.md).  [as it was trained]",
    ),
)


class Gap(NamedTuple):
    """The text around a gap.

    Attributes:
        order: in which the model reads it; None is the model's own.
        was_typed: on the command line, so that whoever reads the answer has seen it.
    """

    prefix: str
    suffix: str
    order: str | None
    was_typed: bool


def gap_of(values: dict[str, Any]) -> Gap | None:
    """Takes what `INFILL_OPTIONS` gave out of `values`; None where no gap is to be filled.

    Raises:
        InvalidRequestError: the file cannot be read, or does not mark one gap.
    """
    texts, file, order = values.pop("fim"), values.pop("fim_file"), values.pop("fim_order")
    if texts is not None and file is not None:
        raise click.UsageError("give either --fim or --fim-file, not both")
    if texts is None and file is None:
        if order is not None:
            raise click.UsageError("--fim-order says how a gap is filled; add --fim or --fim-file")
        return None
    if file is not None:
        texts = _split(read_stdin() if file == "-" else read_text_file(file), file)
    else:
        for text in texts:
            check_argument(text)
    return Gap(texts[0], texts[1], order, was_typed=file is None)


def _split(text: str, file: str) -> tuple[str, str]:
    parts = text.split(GAP_MARK)
    if len(parts) != 2:
        raise InvalidRequestError(
            f"{'standard input' if file == '-' else file}: {GAP_MARK} stands in it {len(parts) - 1} times; expected it "
            f"once, where the gap is"
        )
    return parts[0], parts[1]
