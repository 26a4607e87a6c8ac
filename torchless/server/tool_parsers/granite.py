"""Granite 3: ``<|tool_call|>`` (or ``<tool_call>`` in 3.0) and a list of JSON objects to the end of the answer."""

from __future__ import annotations

from torchless.server.tool_styles import ToolStyle, json_calls, json_frame

__all__ = ["STYLE"]


STYLE = ToolStyle(
    name="granite",
    order=20,
    detect=lambda template: (
        "<|tool_call|>" in template
        or ("<|start_of_role|>" in template and "</tool_call>" not in template and "tool" in template)
    ),
    begins=("<|tool_call|>", "<tool_call>"),
    ends=(),
    read=json_calls,
    frame=json_frame("[", "]"),
)
