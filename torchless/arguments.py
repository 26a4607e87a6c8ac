"""Checks of arguments that a caller gave, with errors that name them."""

from __future__ import annotations

import operator
from typing import Any

from torchless.errors import InvalidRequestError

__all__ = ["flag", "whole_number"]


def whole_number(name: str, value: Any, low: int, high: int, *, auto: bool = False) -> int | None:
    """A whole number in a range; None for "auto" where that is allowed. Raises InvalidRequestError."""
    if auto and value == "auto":
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        either = '"auto" or ' if auto else ""
        raise InvalidRequestError(
            f"{name} must be {either}a whole number from {low} to {high}, got {value!r}"
        )
    return number


def flag(name: str, value: Any) -> bool:
    """True or False. Raises InvalidRequestError for anything else."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be True or False, got {value!r}")
    return value
