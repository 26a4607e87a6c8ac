"""Checks of parameters: (name, value) -> the value in its final form, or an error that says what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from torchless.errors import InvalidRequestError

__all__ = [
    "Check",
    "biases_by_id",
    "flag",
    "functions",
    "integer_in",
    "logprob_count",
    "number_in",
    "sampler_names",
    "strings",
]

MAX_BIAS = 1e30  # far beyond any logit, and no sum of the two overflows float32

SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
"""All samplers that have a place of their own in the chain, in llama.cpp's order."""

_LETTERS = dict(zip("edskypmxt", SAMPLERS, strict=True))
_OTHER_NAMES = {"typical_p": "typ_p", "typical": "typ_p", "temp": "temperature", "top_nsigma": "top_n_sigma"}

Check = Callable[[str, Any], Any]


def invalid(name: str, value: object, expected: str) -> InvalidRequestError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequestError(f"{name} must be {expected}, got {shown}")


def number_in(low: float, high: float, expected: str, *, above_low: bool = False) -> Check:
    """A finite number from `low` (or above it) to `high`."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise invalid(name, value, expected)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and low <= number <= high) or (above_low and number == low):
            raise invalid(name, value, expected)
        return number

    return check


def integer_in(low: int, high: int | None, expected: str, *, optional: bool = False) -> Check:
    """A whole number from `low` to `high`, or None where that is allowed."""

    def check(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        try:
            number = operator.index(value)
        except TypeError:
            raise invalid(name, value, expected) from None
        if isinstance(value, bool) or number < low or (high is not None and number > high):
            raise invalid(name, value, expected)
        return number

    return check


def logprob_count(most: int) -> Check:
    """How many likely tokens are named for each place: 0 to `most`, True (0: the token alone), None or False (off)."""
    check_count = integer_in(
        0, most, f"a whole number from 0 to {most}, True (0), or None (off)", optional=True
    )

    def check(name: str, value: Any) -> int | None:
        if isinstance(value, bool):
            return 0 if value else None
        count: int | None = check_count(name, value)
        return count

    return check


def strings(name: str, value: Any) -> tuple[str, ...]:
    """A string or several, none of them empty."""
    expected = "a non-empty string or a list of such"
    if value is None:
        return ()
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise invalid(name, value, expected)
    found = tuple(given)
    if not all(isinstance(string, str) and string for string in found):
        raise invalid(name, value, expected)
    return found


def biases_by_id(name: str, value: Any) -> dict[int, float]:
    """Token ids to numbers or -inf."""
    expected = "a dictionary {token id: number}"
    if not isinstance(value, Mapping):
        raise invalid(name, value, expected)
    check_id = integer_in(0, 2**31 - 1, "a whole number, 0 or more")
    check_bias = number_in(
        -MAX_BIAS, MAX_BIAS, f"a number from -{MAX_BIAS:g} to {MAX_BIAS:g}, or -inf (forbidden)"
    )
    biases: dict[int, float] = {}
    for token_id, bias in value.items():
        number = -math.inf if _is_minus_infinity(bias) else check_bias(f"{name}[{token_id!r}]", bias)
        biases[check_id(f"a token id in {name}", token_id)] = number
    return biases


def _is_minus_infinity(value: Any) -> bool:
    return isinstance(value, float) and value == -math.inf


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise invalid(name, value, "True or False")
    return value


def functions(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """A function or several."""
    found = (value,) if callable(value) else () if value is None else tuple(value)
    if not all(callable(item) for item in found):
        raise invalid(name, value, "a function of (ids, logits) or a list of such")
    return found


def sampler_names(name: str, value: Any) -> tuple[str, ...]:
    """Names in order: a list, ``"top_k;top_p;temperature"`` or llama.cpp's letters (``"kpt"``)."""
    expected = f"names from {', '.join(SAMPLERS)}, separated by ';', or their letters ({''.join(_LETTERS)})"
    if isinstance(value, str):
        parts = [part.strip() for part in value.replace(",", ";").split(";") if part.strip()]
        if len(parts) == 1 and parts[0] not in {*SAMPLERS, *_OTHER_NAMES} and set(parts[0]) <= set(_LETTERS):
            parts = [_LETTERS[letter] for letter in parts[0]]
    elif isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        parts = list(value)
    else:
        raise invalid(name, value, expected)
    found = tuple(_OTHER_NAMES.get(part, part) if isinstance(part, str) else part for part in parts)
    if not all(part in SAMPLERS for part in found):
        raise invalid(name, value, expected)
    return found
