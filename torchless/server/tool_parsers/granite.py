"""Granite 3: ``<|tool_call|>`` (or ``<tool_call>`` in 3.0) and a list of JSON objects to the end of the answer."""

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
    name="granite",
    order=20,
    detect=lambda template: (
        "<|tool_call|>" in template
        or ("<|start_of_role|>" in template and "</tool_call>" not in template and "tool" in template)
    ),
    begins=("<|tool_call|>", "<tool_call>"),
    ends=(),
    read=_read,
    frame=_frame,
)
