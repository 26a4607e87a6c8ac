"""Mistral: ``[TOOL_CALLS]`` and a list of JSON objects, or (since version 11) ``[TOOL_CALLS]NAME[ARGS]{...}``."""

from __future__ import annotations

import re
import secrets

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import (
    MalformedCallError,
    Schemas,
    ToolStyle,
    calls_of,
    json_frame,
    json_values,
)

__all__ = ["STYLE"]

_ID_LENGTH = 9
"""Letters or digits of a call's id, which these models' templates insist on."""
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*[\w-]*\s*)?(?:\[ARGS\])?\s*(?=\{)")


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for part in filter(str.strip, text.split("[TOOL_CALLS]")):
        named = _NAMED.match(part)
        if named is None:
            values = json_values(part)
        else:
            values = [{"name": named[1], "arguments": value} for value in json_values(part[named.end() :])]
            if len(values) > 1:
                raise MalformedCallError(f"the call of {named[1]} has several arguments")
        calls += [call for value in values for call in calls_of(value, schemas)]
    return [ToolCall(call.name, call.arguments, _call_id()) for call in calls]


def _call_id() -> str:
    return secrets.token_hex(_ID_LENGTH)[:_ID_LENGTH]


STYLE = ToolStyle(
    name="mistral",
    order=30,
    detect=lambda template: "[TOOL_CALLS]" in template,
    begins=("[TOOL_CALLS]",),
    ends=(),
    read=_read,
    frame=json_frame("[", "]"),
    id_length=_ID_LENGTH,
)
