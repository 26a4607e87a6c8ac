"""Options of the prefix cache."""

from __future__ import annotations

from torchless.cli.options import Option
from torchless.prefix_cache_settings import DEFAULT_SIZE

__all__ = ["PREFIX_CACHE_OPTIONS"]

_HEADING = "Prefix cache (same answers, sooner)"

PREFIX_CACHE_OPTIONS = (
    Option(
        "--prefix-cache",
        "prefix_cache_dir",
        metavar="DIR|on",
        heading=_HEADING,
        aliases=("--prompt-cache", "--slot-save-path", "--prefix-cache-dir"),
        help="Keep what was computed for prompts on disk, too, for later runs and for other processes: in a "
        "folder, or in the usual one (on). [off]",
    ),
    Option(
        "--prefix-cache-size",
        metavar="SIZE",
        heading=_HEADING,
        help=f"Most that it may take there; what was used the longest ago goes first. [{DEFAULT_SIZE}]",
    ),
    Option(
        "--no-prefix-cache",
        is_flag=True,
        heading=_HEADING,
        aliases=("--no-cache-prompt", "--no-enable-prefix-caching"),
        help="Compute every prompt anew, also where one before began with the same text.",
    ),
)
