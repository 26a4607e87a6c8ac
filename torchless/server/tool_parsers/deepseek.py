"""DeepSeek V3 and R1: calls between control tokens: type, name and JSON in a block; since V3.1 name and JSON."""

from __future__ import annotations

import re

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import MalformedCallError, Schemas, ToolStyle, calls_of, json_values

__all__ = ["STYLE"]

_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _BETWEEN = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_FENCED = re.compile(r"\s*([\w.-]+)\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for part in text.split(_CALL)[1:]:
        inner, _, rest = part.partition(_CALL_END)
        if rest.strip():
            raise MalformedCallError("there is text between two calls")
        first, separator, second = inner.partition(_BETWEEN)
        if not separator:
            raise MalformedCallError("a call has no name")
        fenced = _FENCED.fullmatch(second) if first.strip() == "function" else None
        name, arguments = (fenced[1], fenced[2]) if fenced else (first.strip(), second)
        for value in json_values(arguments, ""):
            calls += calls_of({"name": name, "arguments": value}, schemas)
    if not calls:
        raise MalformedCallError("there is no call between the marks")
    return calls


def _frame(name: str) -> tuple[str, str]:
    return f"{_CALL}{name}{_BETWEEN}", _CALL_END


STYLE = ToolStyle(
    name="deepseek",
    order=25,
    detect=lambda template: "tool▁calls▁begin" in template,
    begins=(_BEGIN,),
    ends=(_END,),
    read=_read,
    frame=_frame,
)
