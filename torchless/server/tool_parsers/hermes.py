"""Hermes 2 Pro, Qwen 2.5 and 3, Granite 4 and others: a JSON object between ``<tool_call>`` and ``</tool_call>``."""

from __future__ import annotations

from torchless.server.tool_styles import ToolStyle, json_calls, json_frame

__all__ = ["STYLE"]


STYLE = ToolStyle(
    name="hermes",
    order=50,
    detect=lambda template: "<tool_call>" in template and '"name' in template.replace("\\", ""),
    begins=("<tool_call>",),
    ends=("</tool_call>",),
    read=json_calls,
    frame=json_frame("\n", "\n"),
)
