"""Keyword arguments under other tools' names: aliases resolved, unknown names answered with the nearest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

__all__ = ["resolve_keywords"]


def resolve_keywords(
    function: str, given: Mapping[str, Any], names: Collection[str], aliases: Mapping[str, str]
) -> dict[str, Any]:
    """Renames the keywords in `given` to ours.

    Args:
        function: what was called, for the message.
        given: keywords as they came in.
        names: our names.
        aliases: other tools' names -> ours.

    Raises:
        TypeError: an unknown keyword, or one concept given twice.

    Example:
        >>> resolve_keywords("f", {"temp": 0.5}, ["temperature"], {"temp": "temperature"})
        {'temperature': 0.5}
    """
    resolved: dict[str, Any] = {}
    for keyword, value in given.items():
        name = keyword if keyword in names else aliases.get(keyword)
        if name is None:
            near = get_close_matches(keyword, [*names, *aliases], n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(sorted(names))}"
            raise TypeError(f"{function} got an unexpected keyword argument {keyword!r}{hint}")
        if name in resolved:
            raise TypeError(f"{function} got {name!r} twice (once as {keyword!r} or another alias)")
        resolved[name] = value
    return resolved
