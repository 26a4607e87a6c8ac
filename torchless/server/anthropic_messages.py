"""Anthropic's messages, tools and choices in OpenAI's form, which the rest of the server reads."""

from __future__ import annotations

import json
from typing import Any

from torchless.server.errors import ApiError

__all__ = ["openai_choice", "openai_messages", "openai_tools"]


def openai_messages(messages: list[Any], system: str | list[Any] | None) -> list[dict[str, Any]]:
    """A conversation with the system's text in front.

    Raises:
        ApiError: a message is malformed, or has what the model cannot read; names the place.
    """
    made: list[dict[str, Any]] = []
    if system:
        made.append({"role": "system", "content": _text(system, "system")})
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _wrong(place, f"expected an object, got {type(message).__name__}")
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise _wrong(f"{place}.role", f"expected 'user' or 'assistant', got {role!r:.60}")
        content = message.get("content")
        if isinstance(content, str):
            made.append({"role": role, "content": content})
        elif isinstance(content, list):
            made += _of_blocks(role, content, f"{place}.content")
        else:
            raise _wrong(f"{place}.content", "expected a text or a list of blocks")
    return made


def _of_blocks(role: str, blocks: list[Any], place: str) -> list[dict[str, Any]]:
    """The messages that one of blocks stands for: results of tools are messages of their own."""
    results: list[dict[str, Any]] = []
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        here = f"{place}[{index}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_text([block], here))
        elif kind == "thinking" and role == "assistant":
            thoughts.append(_field(block, "thinking", here))
        elif kind == "redacted_thinking" and role == "assistant":
            continue  # another server's, which only that can read
        elif kind == "tool_use" and role == "assistant":
            arguments = block.get("input")
            if not isinstance(arguments, dict):
                raise _wrong(f"{here}.input", "expected an object")
            function = {"name": _field(block, "name", here), "arguments": json.dumps(arguments)}
            calls.append({"id": _field(block, "id", here), "type": "function", "function": function})
        elif kind == "tool_result" and role == "user":
            text = _text(block.get("content") or "", f"{here}.content")
            results.append(
                {"role": "tool", "tool_call_id": _field(block, "tool_use_id", here), "content": text}
            )
        else:
            raise _wrong(f"{here}.type", f"{kind!r:.60} is not supported here; this model reads text")
    made: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if thoughts:
        made["reasoning_content"] = "\n".join(thoughts)
    if calls:
        made["tool_calls"] = calls
    return [*results, made] if texts or calls or thoughts or not results else results


def openai_tools(tools: list[Any] | None) -> list[dict[str, Any]] | None:
    """Tools with a schema. Raises ApiError for those that Anthropic itself would run."""
    if tools is None:
        return None
    made = []
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise _wrong(place, f"expected an object, got {type(tool).__name__}")
        if tool.get("type", "custom") not in ("custom", None):
            raise _wrong(f"{place}.type", f"{tool['type']!r:.60} is not supported; tools with a schema are")
        function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
        if tool.get("description") is not None:
            function["description"] = tool["description"]
        if tool.get("strict") is not None:
            function["strict"] = tool["strict"]
        made.append({"type": "function", "function": function})
    return made


def openai_choice(choice: dict[str, Any] | None) -> tuple[Any, bool | None]:
    """The choice of tools, and whether several may be called at once."""
    if choice is None:
        return None, None
    parallel = (
        not choice["disable_parallel_tool_use"]
        if choice.get("disable_parallel_tool_use") is not None
        else None
    )
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}, parallel
    names = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in names:
        raise _wrong("tool_choice.type", f"expected 'auto', 'any', 'tool' or 'none', got {kind!r:.60}")
    return names[kind], parallel


def _text(content: str | list[Any], place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(place, f"expected a text or a list of blocks, got {type(content).__name__}")
    texts = []
    for index, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise _wrong(f"{place}[{index}]", "expected a block of text; this model reads text")
        texts.append(_field(block, "text", f"{place}[{index}]"))
    return "\n".join(texts)


def _field(block: dict[str, Any], name: str, place: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{place}.{name}", f"expected a text, got {type(value).__name__}")
    return value


def _wrong(place: str, sentence: str) -> ApiError:
    return ApiError(400, f"{place}: {sentence}", code="invalid_value", param=place)
