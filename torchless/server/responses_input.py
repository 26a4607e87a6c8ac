"""The input of OpenAI's Responses API in the form of its chats, which the rest of the server reads."""

from __future__ import annotations

from typing import Any

from torchless.server.errors import ApiError

__all__ = ["chat_choice", "chat_messages", "chat_tools", "text_form"]


def chat_messages(given: str | list[Any], instructions: str | None) -> list[dict[str, Any]]:
    """A conversation, with the instructions in front.

    Raises:
        ApiError: an item is malformed, or is none that can be read here; names the place.
    """
    made: list[dict[str, Any]] = []
    if instructions:
        made.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*made, {"role": "user", "content": given}]
    for index, item in enumerate(given):
        place = f"input[{index}]"
        if not isinstance(item, dict):
            raise _wrong(place, f"expected an object, got {type(item).__name__}")
        kind = item.get("type", "message")
        if kind == "message":
            made.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "function_call":
            _add_call(made, item, place)
        elif kind == "function_call_output":
            output = item.get("output")
            if not isinstance(output, str | list):
                raise _wrong(f"{place}.output", "expected a text or a list of parts")
            made.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "reasoning":
            _add_reasoning(made, item)
        else:
            raise _wrong(f"{place}.type", f"{kind!r:.60} is not supported here")
    return _joined(made)


def _add_call(made: list[dict[str, Any]], item: dict[str, Any], place: str) -> None:
    if not isinstance(item.get("name"), str):
        raise _wrong(f"{place}.name", "expected a text")
    function = {"name": item["name"], "arguments": item.get("arguments", "{}")}
    call = {"id": item.get("call_id") or item.get("id"), "type": "function", "function": function}
    made.append({"role": "assistant", "content": "", "tool_calls": [call]})


def _add_reasoning(made: list[dict[str, Any]], item: dict[str, Any]) -> None:
    parts = item.get("content") or item.get("summary") or []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if texts:
        made.append({"role": "assistant", "content": "", "reasoning_content": "\n".join(texts)})


def _joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasoning, text and calls of one turn as one message."""
    made: list[dict[str, Any]] = []
    for message in messages:
        last = made[-1] if made else {}
        is_going_on = message.get("role") == last.get("role") == "assistant" and (
            "tool_calls" in message or not last.get("content")
        )
        if not is_going_on:
            made.append(message)
            continue
        calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
        thoughts = [item["reasoning_content"] for item in (last, message) if item.get("reasoning_content")]
        content = message.get("content") or last.get("content")
        made[-1] = {"role": "assistant", "content": content}
        if calls:
            made[-1]["tool_calls"] = calls
        if thoughts:
            made[-1]["reasoning_content"] = "\n".join(thoughts)
    return made


def chat_tools(tools: list[Any] | None) -> list[dict[str, Any]] | None:
    """Tools, whose functions have no level of their own here. Raises ApiError for those that OpenAI would run."""
    if tools is None:
        return None
    made = []
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise _wrong(place, f"expected an object, got {type(tool).__name__}")
        if tool.get("type") != "function":
            raise _wrong(f"{place}.type", f"{tool.get('type')!r:.60} is not supported; functions are")
        function = {name: value for name, value in tool.items() if name != "type" and value is not None}
        made.append({"type": "function", "function": function})
    return made


def chat_choice(choice: Any) -> Any:
    """The choice of tools."""
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def text_form(text: dict[str, Any] | None) -> dict[str, Any]:
    """The keyword for what the text must match. Raises ApiError for a field or form that is unknown."""
    given = dict(text or {})
    if given.pop("verbosity", None) not in (None, "medium"):
        raise _wrong("text.verbosity", "is not supported; leave it out")
    form = given.pop("format", None)
    if given:
        raise _wrong(f"text.{min(given)}", "no such field; there is format")
    if form is None:
        return {}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind == "json_schema" and isinstance(form.get("schema"), dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": form["schema"]}}}
    raise _wrong(
        "text.format", f"expected 'text', 'json_object' or 'json_schema' with a schema, got {form!r:.80}"
    )


def _wrong(place: str, sentence: str) -> ApiError:
    return ApiError(400, f"{place}: {sentence}", code="invalid_value", param=place)
