"""How a conversation is put to a model and its answer read: tools, reasoning, and what its template knows of them."""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchless.errors import TemplateError
from torchless.llm import LLM
from torchless.server.call_grammar import call_grammar
from torchless.server.errors import ApiError
from torchless.server.harmony import MARKS, HarmonyReader
from torchless.server.parts import PlainReader, Reader
from torchless.server.reasoning import ThinkReader
from torchless.server.thinking_budget import ThinkingBudget
from torchless.server.tool_reader import ToolReader
from torchless.server.tool_styles import ToolStyle, find_style
from torchless.server.toolbox import Toolbox
from torchless.text.reasoning import known_style

__all__ = ["ChatForm", "chat_form"]

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_PLAIN_TOOLS = (
    "You can call these tools. To call one, answer with nothing but a JSON object "
    '{"name": "its name", "arguments": {...}}.\n'
)


@dataclass(frozen=True)
class ChatForm:
    """How a conversation is put to a model and its answer read.

    Attributes:
        messages: as the template gets them.
        options: further keywords of the request: tools, values for the template, a grammar, control tokens shown.
        make_reader: makes what reads one answer.
    """

    messages: Sequence[Mapping[str, Any]]
    options: dict[str, Any]
    make_reader: Callable[[], Reader]


def chat_form(
    llm: LLM,
    messages: Sequence[Mapping[str, Any]],
    box: Toolbox,
    *,
    effort: str | None = None,
    budget: int | None = None,
    values: Mapping[str, Any] | None = None,
    is_constrained: bool = False,
) -> ChatForm:
    """The form for one request.

    Args:
        messages: as `messages.template_messages` makes them.
        effort: how much the model shall think: one of "none", "minimal", "low", "medium", "high", "xhigh"; None leaves
            it to the template.
        budget: most tokens that it shall think.
        values: further values for the template, which win over what `effort` means.
        is_constrained: the request has a grammar of its own, under which no mark can come.

    Raises:
        ApiError: the model's template has no such setting, or the tools' schemas cannot be enforced.
    """
    template = llm.chat_template
    given = {**_effort_values(template, effort), **(values or {})}
    style = find_style(template if box.is_active else None)
    options: dict[str, Any] = {"chat_template_kwargs": given}
    takes_tools = template is not None and "tools" in template
    if box.is_active and takes_tools:
        options["tools"] = list(box.tools)
    elif box.is_active:
        messages = _with_tools_in_words(messages, box)
    elif not takes_tools:
        messages = _in_words(messages)
    id_length = find_style(template).id_length
    if id_length is not None:
        messages = [_with_short_ids(message, id_length) for message in messages]
    is_harmony = template is not None and is_harmony_template(template)
    must_call = box.choice == "required"
    if box.is_active and (must_call or box.strict & set(box.names)):
        if is_constrained:
            raise ApiError(
                400, "tool_choice: a call and a form of the text exclude each other", param="tool_choice"
            )
        if style.frame is None and not must_call:
            message = f"tools: strict tools are not supported with this model's form of calls ({style.name})"
            raise ApiError(400, message, code="unsupported_field", param="tools")
        if style.frame is None:
            style, is_harmony = find_style(None), False
        options["grammar"] = call_grammar(style, box, llm.tokenizer)
    if is_constrained:
        return ChatForm(messages, options, PlainReader)  # under which no model thinks
    marks = _marks(llm, template, style, box, is_harmony)
    options["show_special"] = any(_is_control(llm, mark) for mark in marks)
    if is_harmony:
        if budget is not None:
            marks = (
                "<|channel|>analysis",
                "<|channel|>final",
                "<|end|><|start|>assistant<|channel|>final<|message|>",
            )
            options["processors"] = _budget(llm, budget, *marks)
        return ChatForm(messages, options, lambda: HarmonyReader(box.schemas if box.is_active else {}))
    thinking = None if must_call else known_style(template)
    is_open = thinking is not None and _ends_with(llm, thinking.opening, given)
    if budget is not None and not must_call:
        if thinking is None:
            message = "thinking_budget: this model's chat template knows no reasoning; leave it out"
            raise ApiError(400, message, code="unsupported_field", param="thinking_budget")
        begin, end = "" if is_open else thinking.opening, thinking.closing
        options["processors"] = _budget(llm, budget, begin, end, f"\n{end}\n\n")

    def make_reader() -> Reader:
        inner: Reader = PlainReader()
        if box.is_active:
            inner = ToolReader(style, {name: box.schemas[name] for name in box.names}, parallel=box.parallel)
        return inner if thinking is None else ThinkReader(inner, thinking, is_open=is_open)

    return ChatForm(messages, options, make_reader)


def _budget(llm: LLM, budget: int, begin: str, end: str, close: str) -> list[ThinkingBudget]:
    """What ends reasoning that takes too long."""
    if budget < 1:
        message = f"thinking_budget: must be at least 1, got {budget}; reasoning_effort 'none' asks for no reasoning"
        raise ApiError(400, message, code="invalid_value", param="thinking_budget")

    def ids(text: str) -> list[int]:
        return llm.tokenizer.encode(text, add_special_tokens=False, parse_special=True)

    return [ThinkingBudget(budget, ids(begin) if begin else [], ids(end), ids(close))]


def is_harmony_template(template: str) -> bool:
    """Whether a model writes messages in channels."""
    return find_style(template).name == "gpt-oss"


def _marks(
    llm: LLM, template: str | None, style: ToolStyle, box: Toolbox, is_harmony: bool
) -> tuple[str, ...]:
    """All marks that the reader of an answer looks for."""
    if is_harmony:
        return MARKS
    thinking = known_style(template)
    around = () if thinking is None else (thinking.opening, thinking.closing)
    return (*(style.marks if box.is_active else ()), *around)


def _is_control(llm: LLM, mark: str) -> bool:
    index = llm.tokenizer.token_to_id(mark)
    return index is not None and index in llm.tokenizer.special_ids


def _effort_values(template: str | None, effort: str | None) -> dict[str, Any]:
    """What a template must know to think so much."""
    if effort is None:
        return {}
    if effort not in _EFFORTS:
        message = f"reasoning_effort: expected one of {', '.join(_EFFORTS)}, got {effort!r:.60}"
        raise ApiError(400, message, code="invalid_value", param="reasoning_effort")
    source = template or ""
    if "reasoning_effort" in source and effort != "none":
        graded = {"minimal": "low", "xhigh": "high"}
        return {"reasoning_effort": graded.get(effort, effort)}
    for name in ("enable_thinking", "thinking"):
        if re.search(rf"(?<![\w.'\"]){name}(?![\w'\"])", source):
            return {name: effort != "none"}
    if effort == "none" and known_style(template) is None and "reasoning_effort" not in source:
        return {}
    message = f"reasoning_effort: this model's chat template has no way to ask for {effort!r}; leave it out"
    raise ApiError(400, message, code="unsupported_field", param="reasoning_effort")


_open_prompts: weakref.WeakKeyDictionary[LLM, dict[str, bool]] = weakref.WeakKeyDictionary()


def _ends_with(llm: LLM, mark: str, values: Mapping[str, Any]) -> bool:
    """Whether prompts end with a mark, so that an answer begins within what it marks. Found out once for each form."""
    known = _open_prompts.setdefault(llm, {})
    key = json.dumps([mark, values], sort_keys=True, default=str)
    is_open = known.get(key)
    if is_open is None:
        try:
            text = llm.render_chat([{"role": "user", "content": "Hello"}], chat_template_kwargs=values)
        except TemplateError:
            return False  # the request itself will tell
        is_open = text.rstrip().endswith(mark)
        if len(known) > 64:
            known.clear()
        known[key] = is_open
    return is_open


def _with_tools_in_words(messages: Sequence[Mapping[str, Any]], box: Toolbox) -> list[Mapping[str, Any]]:
    """Messages for a template that knows no tools: a system message tells of them."""
    described = _PLAIN_TOOLS + "\n".join(
        json.dumps(tool["function"], ensure_ascii=False)
        for tool in box.tools
        if tool["function"]["name"] in box.names
    )
    first, rest = messages[0], list(messages[1:])
    if first["role"] == "system":
        text = f"{first['content']}\n\n{described}" if first["content"] else described
        return _in_words([{**first, "content": text}, *rest])
    return _in_words([{"role": "system", "content": described}, *messages])


def _with_short_ids(message: Mapping[str, Any], length: int) -> Mapping[str, Any]:
    """A message whose ids of calls have so many letters and digits; the same id always becomes the same."""

    def short(call_id: Any) -> str:
        text = str(call_id)
        fits = len(text) == length and text.isalnum()
        return text if fits else hashlib.sha256(text.encode()).hexdigest()[:length]

    made = dict(message)
    if "tool_call_id" in made:
        made["tool_call_id"] = short(made["tool_call_id"])
    if made.get("tool_calls"):
        made["tool_calls"] = [{**call, "id": short(call.get("id"))} for call in made["tool_calls"]]
    return made


def _in_words(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Calls and their results as texts, for a template that knows neither."""
    made: list[Mapping[str, Any]] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [
                json.dumps({key: call["function"][key] for key in ("name", "arguments")}, ensure_ascii=False)
                for call in message["tool_calls"]
            ]
            text = "\n".join([message["content"], *calls] if message["content"] else calls)
            made.append({"role": message["role"], "content": text})
        elif message["role"] == "tool":
            made.append({"role": "user", "content": f"Result of the tool:\n{message['content']}"})
        else:
            made.append(message)
    return made
