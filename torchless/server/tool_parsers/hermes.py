"""Hermes 2 Pro, Qwen 2.5 and 3, Granite 4 and others: a JSON object between ``<tool_call>`` and ``</tool_call>``."""

from __future__ import annotations

import json

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, calls_of, json_values

__all__ = ["STYLE"]


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    return [call for value in json_values(text) for call in calls_of(value, schemas)]


def _frame(name: str) -> tuple[str, str]:
    return '\n{"name": ' + json.dumps(name) + ', "arguments": ', "}\n"


STYLE = ToolStyle(
    name="hermes",
    order=50,
    detect=lambda template: "<tool_call>" in template and '"name' in template.replace("\\", ""),
    begins=("<tool_call>",),
    ends=("</tool_call>",),
    read=_read,
    frame=_frame,
)
