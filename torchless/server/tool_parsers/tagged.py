"""Qwen3-Coder: ``<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>``, and GLM 4.5 and
later: ``<tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>``.

Values are texts, or JSON where the tool's schema wants something else.
"""

from __future__ import annotations

import json
import re
from typing import Any

from torchless.server.parts import ToolCall
from torchless.server.tool_styles import MalformedCallError, Schemas, ToolStyle, dumped

__all__ = ["STYLE"]

_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)(?:</function>)?\s*", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_NAME = re.compile(r"\s*([^<\s]+)\s*")
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _read(text: str, schemas: Schemas) -> list[ToolCall]:
    function = _FUNCTION.fullmatch(text)
    if function is not None:
        name, rest, pattern = function[1].strip(), function[2], _PARAMETER
    else:
        found = _NAME.match(text)
        if found is None:
            raise MalformedCallError("the call has no name")
        name, rest, pattern = found[1], text[found.end() :], _PAIR
    if name not in schemas:
        raise MalformedCallError(f"there is no tool {name!r:.100}")
    if pattern.sub("", rest).strip():
        raise MalformedCallError(f"the arguments of {name} are not tagged")
    pairs = {key.strip(): _value(value, schemas[name], key.strip()) for key, value in pattern.findall(rest)}
    return [ToolCall(name, dumped(pairs))]


def _value(text: str, schema: Any, key: str) -> Any:
    """A value as the schema has it: a text stays one, anything else is JSON where it can be read as such."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    wanted = properties.get(key, {}) if isinstance(properties, dict) else {}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "string" or (kind is None and not wanted):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


STYLE = ToolStyle(
    name="tagged",
    order=40,
    detect=lambda template: (
        "<tool_call>" in template and ("<function=" in template or "<arg_key>" in template)
    ),
    begins=("<tool_call>",),
    ends=("</tool_call>",),
    read=_read,
)
