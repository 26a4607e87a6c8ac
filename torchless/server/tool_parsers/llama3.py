"""Llama 3.1 to 3.3: an answer that is a JSON object with ``name`` and ``parameters``, or follows ``<|python_tag|>``."""

from __future__ import annotations

import json

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, calls_of, json_values

__all__ = ["STYLE"]


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    return [
        call
        for value in json_values(text.removeprefix("<|python_tag|>"))
        for call in calls_of(value, schemas)
    ]


def _frame(name: str) -> tuple[str, str]:
    return '{"name": ' + json.dumps(name) + ', "parameters": ', "}"


STYLE = ToolStyle(
    name="llama3",
    order=60,
    detect=lambda template: "<|start_header_id|>" in template and '"parameters"' in template,
    begins=("<|python_tag|>", "{"),
    ends=(),
    read=_read,
    frame=_frame,
    at_start=True,
)
