"""Options of the prefix cache."""

from __future__ import annotations

from torchless.cli.options import Option

__all__ = ["PREFIX_CACHE_OPTIONS"]

_HEADING = "Prefix cache (same answers, sooner)"

PREFIX_CACHE_OPTIONS = (
    Option(
        "--no-prefix-cache",
        is_flag=True,
        heading=_HEADING,
        aliases=("--no-cache-prompt", "--no-enable-prefix-caching"),
        help="Compute every prompt anew, also where one before began with the same text.",
    ),
)
