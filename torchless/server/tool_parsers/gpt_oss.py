"""gpt-oss: the harmony format, whose messages have channels and recipients (`server/harmony.py`)."""

from __future__ import annotations

from torchless.server.harmony import HarmonyReader
from torchless.server.parts import ToolCall
from torchless.server.tool_styles import MalformedCallError, Schemas, ToolStyle

__all__ = ["STYLE"]


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    reader = HarmonyReader(schemas)
    calls = [part for part in [*reader.push(text), *reader.finish()] if isinstance(part, ToolCall)]
    if not calls:
        raise MalformedCallError("there is no message to a tool")
    return calls


STYLE = ToolStyle(
    name="gpt-oss",
    order=5,
    detect=lambda template: "<|channel|>" in template and "<|message|>" in template,
    begins=("<|channel|>",),
    ends=("<|call|>",),
    read=_read,
    make_reader=HarmonyReader,
)
