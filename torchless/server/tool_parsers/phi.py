"""Phi-4-mini: a list of JSON objects between ``<|tool_call|>`` and ``<|/tool_call|>``."""

from __future__ import annotations

import json

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, calls_of, json_values

__all__ = ["STYLE"]


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    return [call for value in json_values(text) for call in calls_of(value, schemas)]


def _frame(name: str) -> tuple[str, str]:
    return '[{"name": ' + json.dumps(name) + ', "arguments": ', "}]"


STYLE = ToolStyle(
    name="phi",
    order=10,
    detect=lambda template: (
        "<|/tool_call|>" in template or ("<|tool|>" in template and "<|/tool|>" in template)
    ),
    begins=("<|tool_call|>",),
    ends=("<|/tool_call|>",),
    read=_read,
    frame=_frame,
)
