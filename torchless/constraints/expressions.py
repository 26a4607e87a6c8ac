"""Regular expressions that mean the same here as in Python, ECMA-262 and the library; others are refused.

The library reads the syntax of Rust's regex crate, which gives some texts another meaning: ``[a&&b]`` is an
intersection there, ``[[a]b]`` a class in a class, ``\\<`` and ``\\A`` are assertions.
"""

from __future__ import annotations

import re

__all__ = ["complaint_about", "has_surrogate"]

_MAX_LENGTH = 65_536
_ESCAPES = frozenset("dDwWsSnrtfv")
_PUNCTUATION = frozenset("^$\\.*+?()[]{}|/-\"'&~#!%,:;=@_` ")  # escaped, they stand for themselves
_NUMERIC = re.compile(r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|[pP]\{[A-Za-z_=]+\}")
_REPEAT = re.compile(r"\{\d+(,\d*)?\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)")
_FLAGGED_GROUP = re.compile(r"\?[ims]+[:)]")
_SET_OPERATORS = ("&&", "--", "~~")


def complaint_about(expression: str, *, flags: bool = False) -> str | None:
    """What is wrong with an expression, None where nothing is.

    Args:
        flags: allow groups that set flags (``(?i)``), which JSON Schema has not.
    """
    if len(expression) > _MAX_LENGTH:
        return f"has {len(expression)} characters, at most {_MAX_LENGTH} are allowed"
    if has_surrogate(expression):
        return "has a lone surrogate, which is no character"
    position, in_class, repeated_at = 0, False, -1
    while position < len(expression):
        character = expression[position]
        if character == "\\":
            length = _escape_length(expression, position)
            if length is None:
                return f"has an escape that is not supported: {expression[position : position + 2]!r}"
            position += length
            continue
        if in_class:
            if character == "[" or expression.startswith(_SET_OPERATORS, position):
                found = expression[position : position + 2]
                return (
                    f"has {found!r} in a character class, which is read in different ways; escape it with \\"
                )
            in_class = character != "]"
        elif character == "[":
            in_class = True
            position += 1 + expression.startswith("^", position + 1)
            if expression.startswith("]", position):
                return "begins a character class with ']', which is read in different ways; escape it with \\"
            continue
        elif character == "(" and expression.startswith("?", position + 1):
            known = _GROUP.match(expression, position + 1)
            if not known and not (flags and _FLAGGED_GROUP.match(expression, position + 1)):
                return f"has a group that is not supported: {expression[position : position + 4]!r}"
        elif character == "{" and not _REPEAT.match(expression, position):
            return "has a '{' that begins no repetition such as {2,5}; escape it with \\"
        elif character == "+" and repeated_at == position:
            return "has a possessive repetition, which is not supported"
        elif character in "*+?}":
            repeated_at = position + 1
        position += 1
    return None


def has_surrogate(text: str) -> bool:
    """Whether half of a pair of UTF-16 stands in a text by itself."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _escape_length(expression: str, position: int) -> int | None:
    numeric = _NUMERIC.match(expression, position + 1)
    if numeric:
        return 1 + len(numeric[0])
    known = expression[position + 1 : position + 2]
    return 2 if known and (known in _ESCAPES or known in _PUNCTUATION) else None
