"""How much a model shall think before it answers: what its chat template must know for that."""

from __future__ import annotations

import re
from typing import Any

from torchless.errors import InvalidRequestError, UnsupportedError

__all__ = ["THINKING", "thinking_values"]

THINKING = ("off", "on", "low", "medium", "high")
"""Not at all, as ever, and three grades for models that were trained for those."""

_GRADE = "reasoning_effort"
_SWITCHES = ("enable_thinking", "thinking")


def thinking_values(template: str | None, thinking: str) -> dict[str, Any]:
    """Values for a chat template (`Request.chat_template_kwargs`).

    Args:
        template: its Jinja source.
        thinking: one of `THINKING`.

    Raises:
        InvalidRequestError: not one of these.
        UnsupportedError: the template has no such setting.

    >>> thinking_values("{% if enable_thinking %}", "off")
    {'enable_thinking': False}
    """
    if thinking not in THINKING:
        raise InvalidRequestError(f"thinking is one of {', '.join(THINKING)}, got {thinking!r}")
    source = template or ""
    if _names(source, _GRADE):
        if thinking == "off":
            raise UnsupportedError("this model always thinks; it takes low, medium or high")
        return {} if thinking == "on" else {_GRADE: thinking}
    for name in _SWITCHES:
        if _names(source, name):
            if thinking not in ("off", "on"):
                raise UnsupportedError(f"this model thinks or does not, and knows no grade {thinking!r}")
            return {name: thinking == "on"}
    raise UnsupportedError("this model's chat template has no setting for how much it thinks")


def _names(source: str, variable: str) -> bool:
    """Whether a template uses a variable of this name, rather than a field or a text."""
    return re.search(rf"(?<![\w.'\"]){variable}(?![\w'\"])", source) is not None
