"""``/v1/chat/completions``: OpenAI's chat."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.llm import LLM
from torchless.server.answers import Answer, Answers, Piece
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.chat_form import chat_form
from torchless.server.chat_start import begin_answers
from torchless.server.errors import ApiError
from torchless.server.messages import template_messages
from torchless.server.openai_fields import take_fixed
from torchless.server.openai_logprobs import chat_logprobs, wanted_logprobs
from torchless.server.openai_usage import FINGERPRINT, facts, finish_reason, usage
from torchless.server.parts import Reasoning, Text, ToolCall
from torchless.server.sampling_fields import is_constrained, sampling_keywords, seeds
from torchless.server.shapes import openai_error
from torchless.server.sse import DONE, event
from torchless.server.toolbox import Toolbox

__all__ = ["ROUTES", "ChatFields", "StreamOptions"]

MAX_ANSWERS = 128


class StreamOptions(msgspec.Struct):
    """What a stream has besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatFields(msgspec.Struct):
    """Fields of a chat request that are not sampling parameters."""

    messages: list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None


async def chat(call: Call) -> ASGIApp:
    """Answers a conversation."""
    fields, others = decoded(call.body, ChatFields)
    take_fixed(others)
    sampling = sampling_keywords(others, tuple(ChatFields.__struct_fields__))
    count = 1 if fields.n is None else fields.n
    if not 1 <= count <= MAX_ANSWERS:
        raise ApiError(
            400, f"n: must be from 1 to {MAX_ANSWERS}, got {count}", code="invalid_value", param="n"
        )
    if fields.stream_options is not None and not fields.stream:
        raise ApiError(
            400, "stream_options: only a stream has them", code="invalid_value", param="stream_options"
        )
    sampling |= wanted_logprobs(fields.logprobs, fields.top_logprobs)
    box = Toolbox.read(fields.tools, fields.tool_choice, fields.parallel_tool_calls)
    lease = await call.lease(fields.model)

    async def begun() -> Answers:
        return await begin_chat(lease.llm, fields, box, seeds(sampling, count))

    writer = ChatWriter(lease.name, bool(fields.stream_options and fields.stream_options.include_usage))
    return await call.reply(lease, begun(), writer, stream=bool(fields.stream))


async def begin_chat(
    llm: LLM, fields: ChatFields, box: Toolbox, sampling: Sequence[dict[str, Any]]
) -> Answers:
    """Puts a conversation to a model, once for each of the sampling parameters."""
    has_developer = "developer" in (llm.chat_template or "")
    form = chat_form(
        llm,
        template_messages(fields.messages, has_developer=has_developer),
        box,
        effort=fields.reasoning_effort,
        budget=fields.thinking_budget,
        values=fields.chat_template_kwargs,
        is_constrained=is_constrained(sampling[0]),
    )
    return await begin_answers(llm, form, sampling)


class ChatWriter:
    """Writes answers as ``chat.completion`` objects, or as chunks of them."""

    def __init__(self, model: str, with_usage: bool) -> None:
        self._common = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._with_usage = with_usage

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        num_calls = [0] * len(answers.answers)
        for index in range(len(answers.answers)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                logprobs = chat_logprobs(piece.chunk.logprobs)
                deltas = _deltas(piece, num_calls)
                if logprobs is not None and logprobs["content"] and not deltas:
                    deltas = [{"content": ""}]  # the text is held back, the tokens are not
                for position, delta in enumerate(deltas):
                    yield self._chunk(piece.index, delta, logprobs=None if position else logprobs)
                if piece.chunk.completion is not None:
                    reason = finish_reason(piece.chunk.completion, has_calls=num_calls[piece.index] > 0)
                    yield self._chunk(piece.index, {}, reason)
        if self._with_usage:
            counted = {"choices": [], "usage": usage(answers.answers), "torchless": facts(answers.answers)}
            yield event({"object": "chat.completion.chunk", **self._common, **counted})
        yield DONE

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        return {
            "object": "chat.completion",
            **self._common,
            "choices": [_choice(index, answer) for index, answer in enumerate(answers.answers)],
            "usage": usage(answers.answers),
            "torchless": facts(answers.answers),
        }

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return event(openai_error(error))

    def _chunk(
        self, index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        made = {"object": "chat.completion.chunk", **self._common, "choices": [choice]}
        return event({**made, "usage": None} if self._with_usage else made)


def _deltas(piece: Piece, num_calls: list[int]) -> list[dict[str, Any]]:
    """What a piece adds to the message."""
    made: list[dict[str, Any]] = []
    for part in piece.parts:
        if isinstance(part, Text):
            made.append({"content": part.text})
        elif isinstance(part, Reasoning):
            made.append({"reasoning_content": part.text})
        elif isinstance(part, ToolCall):
            made.append({"tool_calls": [{"index": num_calls[piece.index], **call_value(part)}]})
            num_calls[piece.index] += 1
    return made


def call_value(call: ToolCall) -> dict[str, Any]:
    """A call of a tool."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [call_value(item) for item in answer.calls]
        message["content"] = answer.text or None
    reason = finish_reason(answer.done, has_calls=bool(answer.calls))
    logprobs = chat_logprobs(answer.done.logprobs)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


ROUTES = [post("/v1/chat/completions", chat, ChatFields)]
