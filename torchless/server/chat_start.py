"""Starts what a `ChatForm` describes: answers, or the prompt alone.

Most templates take the arguments of earlier calls as objects, some as JSON text: what the one refuses is tried as the
other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from torchless.errors import TemplateError
from torchless.llm import LLM
from torchless.requests import Request
from torchless.server.answers import Answers
from torchless.server.chat_form import ChatForm

__all__ = ["begin_answers", "prompt_ids", "prompt_text"]

_T = TypeVar("_T")
_Messages = Sequence[Mapping[str, Any]]


async def begin_answers(llm: LLM, form: ChatForm, keywords: Sequence[Mapping[str, Any]]) -> Answers:
    """Puts a conversation to a model, once for each of the keywords. Raises as `Answers.begin`."""

    async def begin(messages: _Messages) -> Answers:
        requests = [Request(messages=messages, **form.options, **each) for each in keywords]
        return await Answers.begin(llm, requests, form.make_reader)

    return await _tried(form, begin)


async def prompt_ids(llm: LLM, form: ChatForm) -> list[int]:
    """Token ids of a conversation. Raises as `LLM.encode`."""
    options = {
        name: value for name, value in form.options.items() if name in ("tools", "chat_template_kwargs")
    }

    async def encode(messages: _Messages) -> list[int]:
        return await asyncio.to_thread(llm.encode, Request(messages=messages, **options))

    return await _tried(form, encode)


async def prompt_text(llm: LLM, form: ChatForm) -> str:
    """The text of a conversation. Raises as `LLM.render_chat`."""
    options = {
        name: value for name, value in form.options.items() if name in ("tools", "chat_template_kwargs")
    }

    async def render(messages: _Messages) -> str:
        return await asyncio.to_thread(lambda: llm.render_chat(messages, **options))

    return await _tried(form, render)


async def _tried(form: ChatForm, work: Callable[[_Messages], Awaitable[_T]]) -> _T:
    """What `work` makes of the messages, or of those with arguments as text."""
    try:
        return await work(form.messages)
    except TemplateError as error:
        if not any(message.get("tool_calls") for message in form.messages):
            raise
        try:
            return await work([_with_text_arguments(message) for message in form.messages])
        except TemplateError:
            raise error from None


def _with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": text}})
    return {**message, "tool_calls": calls}
