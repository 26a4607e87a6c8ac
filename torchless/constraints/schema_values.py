"""Values of JSON Schema's keywords, each checked; a GrammarError names the place as a JSON pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torchless.constraints.expressions import complaint_about, has_surrogate
from torchless.constraints.keywords import FORMATS, TYPES
from torchless.errors import GrammarError

__all__ = ["CHECKS", "check_constant", "join", "name_complaint", "refuse", "shown", "whole"]

_MAX_DEPTH = 48
_MAX_LENGTH = 1_000_000  # characters of one string
_EXACT = 2**53  # whole numbers to here are exact in float64


def refuse(pointer: str, complaint: str) -> GrammarError:
    """The error for a place in a schema."""
    return GrammarError(f"schema at {pointer or '/'}: {complaint}")


def _type(value: Any, place: str) -> Any:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or name not in TYPES:
            raise refuse(
                place, f"expected one of {', '.join(sorted(TYPES))} or a list of them, got {shown(value)}"
            )
    if not names:
        raise refuse(place, "an empty list allows nothing")
    return value


def _bound(value: Any, place: str) -> Any:
    if isinstance(value, bool) and "exclusive" in place.rpartition("/")[2]:
        return value
    return _number(value, place)


def _number(value: Any, place: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse(place, f"expected a number, got {shown(value)}")
    if abs(value) > _EXACT:
        raise refuse(place, f"numbers beyond 2**53 = {_EXACT} cannot be compared exactly, got {shown(value)}")
    return value


def _multiple(value: Any, place: str) -> Any:
    if _number(value, place) <= 0:
        raise refuse(place, f"expected a number above 0, got {shown(value)}")
    return value


def whole(value: Any, most: int, place: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise refuse(place, f"expected a whole number, 0 or more, got {shown(value)}")
    if value > most:
        raise refuse(place, f"at most {most} is supported, got {shown(value)}")
    return value


def _length(value: Any, place: str) -> int:
    return whole(value, _MAX_LENGTH, place)


def _pattern(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise refuse(place, f"expected a regular expression, got {shown(value)}")
    complaint = complaint_about(value)
    if complaint is not None:
        raise refuse(place, f"the expression {complaint}")
    return value


def _format(value: Any, place: str) -> str:
    if not isinstance(value, str) or value not in FORMATS:
        raise refuse(place, f"supported formats are {', '.join(sorted(FORMATS))}, got {shown(value)}")
    return value


def _unique(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise refuse(place, f"expected true or false, got {shown(value)}")
    return value


def _names(value: Any, place: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise refuse(place, f"expected a list of names, got {shown(value)}")
    for index, name in enumerate(value):
        complaint = name_complaint(name)
        if complaint is not None:
            raise refuse(join(place, index), f"the name {complaint}")
    return value


CHECKS = {
    "type": _type,
    "bound": _bound,
    "multiple": _multiple,
    "length": _length,
    "pattern": _pattern,
    "format": _format,
    "unique": _unique,
    "names": _names,
}


def check_constant(value: Any, place: str, depth: int) -> None:
    """Refuses constants that JSON or float64 cannot write."""
    if depth > _MAX_DEPTH:
        raise refuse(place, f"values lie in each other more than {_MAX_DEPTH} deep")
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_constant(item, join(place, index), depth + 1)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str) or name_complaint(name) is not None:
                raise refuse(place, f"expected names of properties, got {shown(name)}")
            check_constant(item, join(place, name), depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, place)
    elif isinstance(value, str):
        if has_surrogate(value):
            raise refuse(place, "the text has a lone surrogate, which is no character")
    elif value is not None and not isinstance(value, bool):
        raise refuse(place, f"expected a JSON value, got {shown(value)}")


def name_complaint(name: str) -> str | None:
    if any(ord(character) < 0x20 for character in name):
        return "has a control character, which can be written in several ways"
    return "has a lone surrogate, which is no character" if has_surrogate(name) else None


def join(pointer: str, part: str | int) -> str:
    return f"{pointer}/{str(part).replace('~', '~0').replace('/', '~1')}"


def shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
