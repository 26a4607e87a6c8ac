"""``/v1/responses``: OpenAI's newer API, without what would have to be stored between calls."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.server.answers import Answers
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.chat_form import chat_form
from torchless.server.chat_start import begin_answers
from torchless.server.errors import ApiError
from torchless.server.messages import template_messages
from torchless.server.openai_fields import take_fixed
from torchless.server.openai_logprobs import wanted_logprobs
from torchless.server.responses_input import chat_choice, chat_messages, chat_tools, text_form
from torchless.server.responses_writer import ResponseWriter
from torchless.server.sampling_fields import is_constrained, sampling_keywords
from torchless.server.toolbox import Toolbox

__all__ = ["ROUTES", "ResponseFields"]

_LOGPROBS = "message.output_text.logprobs"
# Field -> values that ask for nothing which is not done anyway.
_ONLY: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "max_tool_calls": (),
    "context_management": (),
}


class ResponseFields(msgspec.Struct):
    """Fields of a request that are not sampling parameters."""

    input: str | list[Any]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    stream_options: dict[str, Any] | None = None


async def responses(call: Call) -> ASGIApp:
    """Answers a text or a conversation."""
    fields, others = decoded(call.body, ResponseFields)
    for name in _ONLY.keys() & others.keys():
        value = others.pop(name)
        if value not in _ONLY[name]:
            message = (
                f"{name}: {value!r:.80} is not supported: nothing is kept between calls, and nothing is cut"
            )
            raise ApiError(400, message, code="unsupported_field", param=name)
    take_fixed(others)
    sampling = sampling_keywords(others, tuple(ResponseFields.__struct_fields__)) | text_form(fields.text)
    if fields.max_output_tokens is not None:
        sampling["max_tokens"] = fields.max_output_tokens
    with_logprobs = _LOGPROBS in (fields.include or ()) or fields.top_logprobs is not None
    for item in fields.include or ():
        if item != _LOGPROBS:
            raise ApiError(
                400, f"include: {item!r:.80} is not supported", code="unsupported_field", param="include"
            )
    sampling |= wanted_logprobs(with_logprobs, fields.top_logprobs)
    box = Toolbox.read(chat_tools(fields.tools), chat_choice(fields.tool_choice), fields.parallel_tool_calls)
    given = chat_messages(fields.input, fields.instructions)
    lease = await call.lease(fields.model)

    async def begun() -> Answers:
        form = chat_form(
            lease.llm,
            template_messages(given, has_developer="developer" in (lease.llm.chat_template or "")),
            box,
            effort=_effort(fields.reasoning),
            is_constrained=is_constrained(sampling),
        )
        return await begin_answers(lease.llm, form, [sampling])

    writer = ResponseWriter(lease.name, _echoed(fields, call.body), with_logprobs=with_logprobs)
    return await call.reply(lease, begun(), writer, stream=bool(fields.stream))


def _effort(reasoning: dict[str, Any] | None) -> str | None:
    unknown = (reasoning or {}).keys() - {"effort", "summary", "generate_summary"}
    if unknown:
        raise ApiError(
            400, f"reasoning.{min(unknown):.60}: no such field; there is effort", param="reasoning"
        )
    effort = (reasoning or {}).get("effort")
    if effort is not None and not isinstance(effort, str):
        raise ApiError(
            400, f"reasoning.effort: expected a text, got {type(effort).__name__}", param="reasoning"
        )
    return effort


def _echoed(fields: ResponseFields, body: dict[str, Any]) -> dict[str, Any]:
    """What a response repeats of its request."""
    return {
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "reasoning": {"effort": (fields.reasoning or {}).get("effort"), "summary": None},
        "temperature": body.get("temperature"),
        "text": fields.text or {"format": {"type": "text"}},
        "tool_choice": fields.tool_choice or "auto",
        "tools": fields.tools or [],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "user": body.get("user"),
    }


ROUTES = [post("/v1/responses", responses, ResponseFields)]
