"""``/v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's API."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.llm import LLM
from torchless.results import Completion
from torchless.server.answers import Answer, Answers
from torchless.server.anthropic_messages import openai_choice, openai_messages, openai_tools
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.chat_form import ChatForm, chat_form
from torchless.server.chat_start import begin_answers, prompt_ids
from torchless.server.errors import ApiError
from torchless.server.messages import template_messages
from torchless.server.openai_usage import facts
from torchless.server.parts import Part, Reasoning, Text, ToolCall
from torchless.server.routes.embeddings import refuse_others
from torchless.server.sampling_fields import is_constrained, sampling_keywords
from torchless.server.shapes import anthropic_error, json_response
from torchless.server.sse import event
from torchless.server.toolbox import Toolbox

__all__ = ["ROUTES", "CountFields", "MessageFields"]

_WITHOUT_EFFECT = ("metadata", "service_tier", "cache_control", "inference_geo")


class CountFields(msgspec.Struct, kw_only=True):
    """Fields that make a prompt."""

    messages: list[Any]
    model: str | None = None
    system: str | list[Any] | None = None
    tools: list[Any] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


class MessageFields(CountFields, kw_only=True):
    """Fields of a request for an answer that are not sampling parameters."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None


async def messages(call: Call) -> ASGIApp:
    """Answers a conversation."""
    fields, others = decoded(call.body, MessageFields)
    for name in _WITHOUT_EFFECT:
        others.pop(name, None)
    sampling = sampling_keywords(
        {**others, "max_tokens": fields.max_tokens}, tuple(MessageFields.__struct_fields__)
    )
    sampling |= _output_format(fields)
    stops = tuple(fields.stop_sequences or ())
    if stops:
        sampling["stop"] = list(stops)
    lease = await call.lease(fields.model)

    async def begun() -> Answers:
        form = _form(lease.llm, fields, sampling)
        return await begin_answers(lease.llm, form, [sampling])

    writer = MessageWriter(lease.name, stops)
    return await call.reply(lease, begun(), writer, stream=bool(fields.stream))


async def count_tokens(call: Call) -> ASGIApp:
    """How many tokens a prompt has."""
    fields, others = decoded(call.body, CountFields)
    refuse_others(others, _WITHOUT_EFFECT)
    lease = await call.lease(fields.model)
    try:
        form = _form(lease.llm, fields, {})
        ids = await prompt_ids(lease.llm, form)
    finally:
        lease.release()
    return json_response({"input_tokens": len(ids)})


def _form(llm: LLM, fields: CountFields, sampling: dict[str, Any]) -> ChatForm:
    choice, parallel = openai_choice(fields.tool_choice)
    box = Toolbox.read(openai_tools(fields.tools), choice, parallel)
    given = openai_messages(fields.messages, fields.system)
    return chat_form(
        llm,
        template_messages(given, has_developer=False),
        box,
        effort=_effort(llm, fields),
        budget=_thinking_budget(fields),
        is_constrained=is_constrained(sampling),
    )


def _effort(llm: LLM, fields: CountFields) -> str | None:
    """How much the model shall think. Models that do not think need not be told so."""
    effort = (fields.output_config or {}).get("effort")
    if effort is not None:
        return "high" if effort == "max" else str(effort)
    kind = (fields.thinking or {}).get("type")
    if kind in (None, "adaptive"):
        return None
    if kind not in ("enabled", "disabled"):
        raise ApiError(400, f"thinking.type: expected 'enabled' or 'disabled', got {kind!r:.60}")
    if kind == "disabled":
        knows = any(name in (llm.chat_template or "") for name in ("enable_thinking", "thinking", "</think>"))
        return "none" if knows else None
    if any(name in (llm.chat_template or "") for name in ("reasoning_effort", "enable_thinking")):
        return "high"
    return None  # it thinks as it was trained to, or the budget is refused


def _thinking_budget(fields: CountFields) -> int | None:
    """Most tokens that the model shall think."""
    thinking = fields.thinking or {}
    budget = thinking.get("budget_tokens")
    if budget is None:
        return None
    if thinking.get("type") != "enabled" or type(budget) is not int or budget < 1:
        raise ApiError(
            400, "thinking.budget_tokens: expected a number of at least 1, with the type 'enabled'"
        )
    return budget


def _output_format(fields: CountFields) -> dict[str, Any]:
    """The form of the text that ``output_config`` asks for."""
    config = fields.output_config or {}
    unknown = config.keys() - {"effort", "format"}
    if unknown:
        raise ApiError(400, f"output_config.{min(unknown)}: no such field; there are effort and format")
    form = config.get("format")
    if form is None:
        return {}
    if (
        not isinstance(form, dict)
        or form.get("type") != "json_schema"
        or not isinstance(form.get("schema"), dict)
    ):
        raise ApiError(400, 'output_config.format: expected {"type": "json_schema", "schema": ...}')
    return {"schema": form["schema"]}


def _stop_reason(answer: Answer, stops: tuple[str, ...]) -> tuple[str, str | None]:
    completion = answer.done
    if answer.calls:
        return "tool_use", None
    if completion.finish_reason == "length":
        return "max_tokens", None
    stop = completion.stop if stops else None
    return ("stop_sequence", stop) if stop is not None else ("end_turn", None)


def _usage(completion: Completion | None, num_output_tokens: int) -> dict[str, Any]:
    counts = None if completion is None else completion.usage
    num_cached = counts.num_cached_tokens if counts else 0
    return {
        "input_tokens": (counts.num_prompt_tokens - num_cached) if counts else 0,
        "cache_read_input_tokens": num_cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": num_output_tokens,
    }


class MessageWriter:
    """Writes an answer as a ``message``, or as the events of one."""

    def __init__(self, model: str, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._message = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        (answer,) = answers.answers
        start: dict[str, Any] = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(None, 0),
        }
        yield event({"type": "message_start", "message": start}, "message_start")
        blocks = _Blocks()
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                for part in piece.parts:
                    for item in blocks.add(part):
                        yield item
        for item in blocks.close():
            yield item
        reason, stop = _stop_reason(answer, self._stops)
        usage = _usage(answer.done, answer.done.usage.num_completion_tokens)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        yield event({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        (answer,) = answers.answers
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.text or not answer.calls:
            content.append({"type": "text", "text": answer.text})
        for call in answer.calls:
            given = json.loads(call.arguments)
            content.append({"type": "tool_use", "id": call.call_id, "name": call.name, "input": given})
        reason, stop = _stop_reason(answer, self._stops)
        return {
            **self._message,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": _usage(answer.done, answer.done.usage.num_completion_tokens),
            "torchless": facts([answer]),
        }

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return event(anthropic_error(error), "error")


class _Blocks:
    """The blocks of an answer, one open at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""

    def add(self, part: Part) -> list[bytes]:
        """The events of one part."""
        if isinstance(part, Text):
            opened = self._open("text", {"type": "text", "text": ""})
            return [*opened, self._delta({"type": "text_delta", "text": part.text})]
        if isinstance(part, Reasoning):
            opened = self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            return [*opened, self._delta({"type": "thinking_delta", "thinking": part.text})]
        if isinstance(part, ToolCall):
            block = {"type": "tool_use", "id": part.call_id, "name": part.name, "input": {}}
            opened = [*self.close(), *self._open("tool_use", block)]
            delta = {"type": "input_json_delta", "partial_json": part.arguments}
            return [*opened, self._delta(delta), *self.close()]
        return []

    def close(self) -> list[bytes]:
        """The end of the block that is open, if one is."""
        if not self._kind:
            return []
        self._kind = ""
        return [event({"type": "content_block_stop", "index": self._index}, "content_block_stop")]

    def _open(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        if self._kind == kind:
            return []
        closed = self.close()
        self._index, self._kind = self._index + 1, kind
        start: dict[str, Any] = {"type": "content_block_start", "index": self._index, "content_block": block}
        return [*closed, event(start, "content_block_start")]

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event(
            {"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta"
        )


ROUTES = [
    post("/v1/messages", messages, MessageFields),
    post("/v1/messages/count_tokens", count_tokens, CountFields),
]
