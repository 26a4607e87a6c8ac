"""Models whose template has no style that is known: an answer that is a JSON object with a name and arguments.

A template that takes no tools gets them in a system message.
"""

from __future__ import annotations

import json
import re

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, calls_of, json_values

__all__ = ["STYLE"]

_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    fenced = _FENCE.fullmatch(text)
    values = json_values(fenced[1] if fenced else text)
    return [call for value in values for call in calls_of(value, schemas)]


def _frame(name: str) -> tuple[str, str]:
    return '{"name": ' + json.dumps(name) + ', "arguments": ', "}"


STYLE = ToolStyle(
    name="plain",
    order=1000,
    detect=lambda template: True,
    begins=("{", "```json"),
    ends=(),
    read=_read,
    frame=_frame,
    at_start=True,
)
