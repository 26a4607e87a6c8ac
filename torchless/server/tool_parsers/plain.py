"""Models whose template has no style that is known: an answer that is a JSON object with a name and arguments.

A template that takes no tools gets them in a system message.
"""

from __future__ import annotations

import re

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, json_calls, json_frame

__all__ = ["STYLE"]

_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    fenced = _FENCE.fullmatch(text)
    return json_calls(fenced[1] if fenced else text, schemas)


STYLE = ToolStyle(
    name="plain",
    order=1000,
    detect=lambda template: True,
    begins=("{", "```json"),
    ends=(),
    read=_read,
    frame=json_frame("", ""),
    at_start=True,
)
