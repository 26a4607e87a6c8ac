"""Options of speculative decoding."""

from __future__ import annotations

import click

from torchless.cli.discovery import names_in
from torchless.cli.model_options import AutoOrCount
from torchless.cli.options import Option
from torchless.speculative_kinds import SPECULATIVE

__all__ = ["SPECULATIVE_OPTIONS"]

_OTHERS = sorted({name.replace("_", "-") for name in names_in("engine/drafters")} - {*SPECULATIVE})
_HEADING = "Drafting (same answers, sooner)"

SPECULATIVE_OPTIONS = (
    Option(
        "-md",
        "--draft-model",
        metavar="PATH",
        heading=_HEADING,
        aliases=("--model-draft", "--speculative-model"),
        help="A smaller model with the same vocabulary that guesses ahead; built-in is the built-in model's.",
    ),
    Option(
        "--speculative",
        type=click.Choice((*SPECULATIVE, "none", "ngram", *_OTHERS), case_sensitive=False),
        metavar="|".join(SPECULATIVE),
        heading=_HEADING,
        aliases=("--spec-type",),
        help="Who guesses ahead: the text itself (prompt-lookup), the draft model, both, or nobody (off); "
        "auto is all there is, as long as it helps.",
    ),
    Option(
        "--draft-tokens",
        "num_draft_tokens",
        type=AutoOrCount(),
        heading=_HEADING,
        aliases=("--draft-max", "--draft", "--draft-n", "--num-draft-tokens", "--num-speculative-tokens"),
        help="Tokens guessed for each step; auto picks from what is measured.",
    ),
)
