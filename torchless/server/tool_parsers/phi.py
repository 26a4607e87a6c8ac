"""Phi-4-mini: a list of JSON objects between ``<|tool_call|>`` and ``<|/tool_call|>``."""

from __future__ import annotations

from torchless.server.tool_styles import ToolStyle, json_calls, json_frame

__all__ = ["STYLE"]


STYLE = ToolStyle(
    name="phi",
    order=10,
    detect=lambda template: (
        "<|/tool_call|>" in template or ("<|tool|>" in template and "<|/tool|>" in template)
    ),
    begins=("<|tool_call|>",),
    ends=("<|/tool_call|>",),
    read=json_calls,
    frame=json_frame("[", "]"),
)
