"""Messages of a conversation: OpenAI's form to what chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torchless.server.errors import ApiError

__all__ = ["template_messages"]

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


def template_messages(messages: Sequence[Any], *, has_developer: bool) -> list[dict[str, Any]]:
    """Messages as templates know them: content is one text, arguments of calls are objects.

    Args:
        messages: OpenAI's form.
        has_developer: the template knows the role "developer"; otherwise it is "system".

    Raises:
        ApiError: a message is malformed, or has what the model cannot read; names the place.
    """
    if not messages:
        raise _wrong("messages", "there are none; expected at least one")
    return [_message(item, f"messages[{index}]", has_developer) for index, item in enumerate(messages)]


def _message(message: Any, place: str, has_developer: bool) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _wrong(place, f"expected an object, got {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _wrong(f"{place}.role", f"expected a text such as 'user', got {role!r:.60}")
    made = {name: value for name, value in message.items() if value is not None}
    if role == "developer" and not has_developer:
        made["role"] = "system"
    made["content"] = _content(message.get("content"), f"{place}.content")
    for name in ("audio", "function_call"):
        if name in made:
            raise _wrong(f"{place}.{name}", "not supported; leave it out")
    if "tool_calls" in made:
        made["tool_calls"] = _calls(made["tool_calls"], f"{place}.tool_calls")
        if not made["tool_calls"]:
            del made["tool_calls"]
    for name in ("name", "tool_call_id", "reasoning_content", "reasoning", "refusal"):
        if not isinstance(made.get(name, ""), str):
            raise _wrong(f"{place}.{name}", f"expected a text, got {type(made[name]).__name__}")
    if "reasoning" in made:
        made.setdefault("reasoning_content", made.pop("reasoning"))
    return made


def _content(content: Any, place: str) -> str:
    """The text of a message; several parts stand on lines of their own."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(place, f"expected a text or a list of parts, got {type(content).__name__}")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else part
        if isinstance(part, dict) and kind not in _TEXT_PARTS:
            raise _wrong(f"{place}[{index}].type", f"{kind!r:.60} is not supported; this model reads text")
        if not isinstance(text, str):
            raise _wrong(f"{place}[{index}].text", f"expected a text, got {type(text).__name__}")
        texts.append(text)
    return "\n".join(texts)


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise _wrong(place, f"expected a list, got {type(calls).__name__}")
    made = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"{place}[{index}].function", "expected an object with a name and arguments")
        arguments = _arguments(function.get("arguments"), f"{place}[{index}].function.arguments")
        made.append({**call, "type": "function", "function": {**function, "arguments": arguments}})
    return made


def _arguments(arguments: Any, place: str) -> Any:
    """Arguments as an object where they are one; the text that a model once wrote, where they are not."""
    if arguments is None:
        return {}
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        raise _wrong(place, f"expected JSON text, got {type(arguments).__name__}")
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _wrong(place: str, sentence: str) -> ApiError:
    return ApiError(400, f"{place}: {sentence}", code="invalid_value", param=place)
