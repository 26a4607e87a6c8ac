"""Llama 3.1 to 3.3: an answer that is a JSON object with ``name`` and ``parameters``, or follows ``<|python_tag|>``."""

from __future__ import annotations

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import Schemas, ToolStyle, json_calls, json_frame

__all__ = ["STYLE"]


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    return json_calls(text.removeprefix("<|python_tag|>"), schemas)


STYLE = ToolStyle(
    name="llama3",
    order=60,
    detect=lambda template: "<|start_header_id|>" in template and '"parameters"' in template,
    begins=("<|python_tag|>", "{"),
    ends=(),
    read=_read,
    frame=json_frame("", "", "parameters"),
    at_start=True,
)
