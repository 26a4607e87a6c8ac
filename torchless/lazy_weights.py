"""Which weights may stay in the file while a model runs: the values of ``lazy``."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torchless.errors import InvalidRequestError

__all__ = ["LAZY_KINDS", "LazyWeights", "lazy_weights"]

LazyWeights: TypeAlias = Literal["off", "all", "experts"]
"""``off``: all are packed when a model is loaded. ``all``: matrices stay in the file's memory map, and a few rows at a
time are packed as they are used. ``experts``: only those of a mixture of experts do."""

LAZY_KINDS: tuple[LazyWeights, ...] = ("off", "all", "experts")


def lazy_weights(value: Any) -> LazyWeights:
    """Checks what a caller gave: a name, or True for ``all`` and False for ``off``.

    Raises:
        InvalidRequestError: something else.
    """
    if isinstance(value, bool):
        return "all" if value else "off"
    for kind in LAZY_KINDS:
        if value == kind:
            return kind
    raise InvalidRequestError(f'lazy must be True, False or "experts", got {value!r}')
