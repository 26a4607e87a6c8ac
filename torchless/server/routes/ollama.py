"""``/api/chat``, ``/api/generate`` and ``/api/embed``: Ollama's API, whose streams are lines of JSON."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless.llm import LLM
from torchless.requests import Request
from torchless.results import TokenLogprob
from torchless.server.answers import Answer, Answers
from torchless.server.body import decoded
from torchless.server.calls import Call, post
from torchless.server.chat_form import chat_form
from torchless.server.chat_start import begin_answers
from torchless.server.errors import ApiError
from torchless.server.messages import template_messages
from torchless.server.ollama_fields import keep_alive_seconds, now, options_keywords, times
from torchless.server.openai_logprobs import chat_logprobs, wanted_logprobs
from torchless.server.parts import Note, PlainReader, Reasoning, Text, ToolCall
from torchless.server.pool import Lease
from torchless.server.routes.embeddings import embedded, refuse_others
from torchless.server.shapes import json_response, ollama_error
from torchless.server.sse import line
from torchless.server.toolbox import Toolbox

__all__ = ["ROUTES", "ChatFields", "EmbedFields", "GenerateFields"]


class _Common(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: str | dict[str, Any] | None = None
    keep_alive: Any = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatFields(_Common, kw_only=True):
    """Fields of a chat."""

    messages: list[dict[str, Any]] = []
    tools: list[Any] | None = None


class GenerateFields(_Common, kw_only=True):
    """Fields of a continuation or of a single question."""

    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None


async def chat(call: Call) -> ASGIApp:
    """Answers a conversation. Without messages the model is loaded, or unloaded where it shall stay for 0 seconds."""
    fields, others = decoded(call.body, ChatFields)
    refuse_others(others)
    began_at = time.perf_counter()
    lease = await _lease(call, fields)
    if not fields.messages:
        return _loaded(lease, fields, {"message": {"role": "assistant", "content": ""}})
    load_seconds = time.perf_counter() - began_at

    async def begun() -> Answers:
        given = [_openai_message(message) for message in fields.messages]
        return await _begin(lease.llm, fields, given, Toolbox.read(fields.tools, None))

    writer = OllamaWriter(fields.model, is_chat=True, began_at=began_at, load_seconds=load_seconds)
    return await call.reply(lease, begun(), writer, stream=fields.stream is not False, media="lines")


async def generate(call: Call) -> ASGIApp:
    """Answers a prompt by the chat template, or continues it where it is raw or the model has no template."""
    fields, others = decoded(call.body, GenerateFields)
    for name in ("images", "context", "template"):
        if others.get(name):
            raise ApiError(400, f"{name}: not supported; leave it out", param=name)
        others.pop(name, None)
    refuse_others(others)
    began_at = time.perf_counter()
    lease = await _lease(call, fields)
    if not fields.prompt and fields.suffix is None:
        return _loaded(lease, fields, {"response": ""})
    load_seconds = time.perf_counter() - began_at

    async def begun() -> Answers:
        llm = lease.llm
        if fields.suffix is None and not fields.raw and llm.chat_template is not None:
            given: list[dict[str, Any]] = [{"role": "user", "content": fields.prompt}]
            if fields.system:
                given.insert(0, {"role": "system", "content": fields.system})
            return await _begin(llm, fields, given, Toolbox())
        if fields.system:
            raise ApiError(400, "system: a raw prompt has none; write it into the prompt", param="system")
        sampling = options_keywords(fields.options, llm.context_length) | _form(fields) | _logprobs(fields)
        if fields.suffix is not None:
            request = Request(prefix=fields.prompt, suffix=fields.suffix, **sampling)
        else:
            request = Request(fields.prompt, parse_special=bool(fields.raw), **sampling)
        return await Answers.begin(llm, [request], PlainReader)

    writer = OllamaWriter(fields.model, is_chat=False, began_at=began_at, load_seconds=load_seconds)
    return await call.reply(lease, begun(), writer, stream=fields.stream is not False, media="lines")


async def _begin(llm: LLM, fields: _Common, given: list[dict[str, Any]], box: Toolbox) -> Answers:
    sampling = options_keywords(fields.options, llm.context_length) | _logprobs(fields)
    wanted = _form(fields)
    form = chat_form(
        llm,
        template_messages(given, has_developer=False),
        box,
        effort=_effort(fields.think),
        is_constrained=bool(wanted),
    )
    return await begin_answers(llm, form, [{**sampling, **wanted}])


def _form(fields: _Common) -> dict[str, Any]:
    """What the text must match."""
    if fields.format in (None, ""):
        return {}
    if fields.format != "json" and not isinstance(fields.format, dict):
        raise ApiError(
            400, f"format: expected 'json' or a JSON schema, got {fields.format!r:.60}", param="format"
        )
    return {"format": fields.format}


def _logprobs(fields: _Common) -> dict[str, Any]:
    return wanted_logprobs(fields.logprobs, fields.top_logprobs)


def _effort(think: bool | str | None) -> str | None:
    if isinstance(think, bool):
        return "high" if think else "none"
    return think


def _openai_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message in OpenAI's form. Raises ApiError for images."""
    if message.get("images"):
        raise ApiError(400, "messages: images are not supported; this model reads text", param="messages")
    made = {name: value for name, value in message.items() if name not in ("images", "thinking", "tool_name")}
    if message.get("thinking"):
        made["reasoning_content"] = message["thinking"]
    if message.get("tool_name"):
        made["name"] = message["tool_name"]
    return made


async def _lease(call: Call, fields: _Common | EmbedFields, task: str = "auto") -> Lease:
    """A model to use, which stays loaded afterwards as long as the request says."""
    seconds = keep_alive_seconds(fields.keep_alive)
    lease = await call.lease(fields.model, task)
    if fields.keep_alive is not None:
        lease.keep_alive_seconds = seconds
    return lease


def _loaded(lease: Lease, fields: _Common, empty: dict[str, Any]) -> ASGIApp:
    """The answer to a request that only loads or unloads a model."""
    lease.release()
    reason = "unload" if lease.keep_alive_seconds == 0 else "load"
    return json_response(
        {"model": fields.model, "created_at": now(), **empty, "done": True, "done_reason": reason}
    )


class OllamaWriter:
    """Writes an answer as Ollama does: a piece of it in each line, counts and times in the last."""

    def __init__(self, model: str, *, is_chat: bool, began_at: float, load_seconds: float) -> None:
        self._model, self._is_chat = model, is_chat
        self._began_at, self._load_seconds = began_at, load_seconds

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """See `Writer`."""
        async with contextlib.aclosing(answers.pieces()) as pieces:
            async for piece in pieces:
                values = [self._part(part) for part in piece.parts if not isinstance(part, Note)]
                logprobs = _token_list(piece.chunk.logprobs)
                if logprobs:
                    values = [(values[0] if values else self._value("")) | logprobs, *values[1:]]
                for value in values:
                    yield line(value)
        yield line(self._value("") | self._times(answers.answers[0]))

    def _part(self, part: Text | Reasoning | ToolCall) -> dict[str, Any]:
        if isinstance(part, ToolCall):
            return self._value("", calls=[part])
        return self._value(part.text) if isinstance(part, Text) else self._value("", part.text)

    def whole(self, answers: Answers) -> Any:
        """See `Writer`."""
        (answer,) = answers.answers
        made = self._value(answer.text, answer.reasoning, answer.calls) | self._times(answer)
        return made | _token_list(answer.done.logprobs)

    def failure(self, error: ApiError) -> bytes:
        """See `Writer`."""
        return line(ollama_error(error))

    def _times(self, answer: Answer) -> dict[str, Any]:
        return times(answer.done, time.perf_counter() - self._began_at, self._load_seconds)

    def _value(self, text: str, reasoning: str = "", calls: list[ToolCall] | None = None) -> dict[str, Any]:
        common = {"model": self._model, "created_at": now(), "done": False}
        if not self._is_chat:
            return {**common, "response": text, **({"thinking": reasoning} if reasoning else {})}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning:
            message["thinking"] = reasoning
        if calls:
            message["tool_calls"] = [
                {"function": {"name": item.name, "arguments": json.loads(item.arguments)}} for item in calls
            ]
        return {**common, "message": message}


def _token_list(tokens: tuple[TokenLogprob, ...] | None) -> dict[str, Any]:
    """Log probabilities, where there are some."""
    found = chat_logprobs(tokens)
    return {"logprobs": found["content"]} if found and found["content"] else {}


class EmbedFields(msgspec.Struct, kw_only=True):
    """Fields of a request for vectors."""

    model: str
    input: str | list[str] = []
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


async def embed(call: Call) -> ASGIApp:
    """Vectors of texts; ends of texts that are too long are left out unless the request says otherwise."""
    fields, others = decoded(call.body, EmbedFields)
    refuse_others(others)
    began_at = time.perf_counter()
    lease = await _lease(call, fields, "embed")
    load_seconds = time.perf_counter() - began_at
    try:
        options_keywords(fields.options, lease.llm.context_length)
        texts = [fields.input] if isinstance(fields.input, str) else fields.input
        options = {"truncate": fields.truncate is not False, "dimensions": fields.dimensions}
        vectors, num_tokens = await call.while_connected(embedded(lease.llm, list(texts), **options))
    finally:
        lease.release()
    return json_response(
        {
            "model": fields.model,
            "embeddings": [[float(str(value)) for value in vector] for vector in vectors],
            "total_duration": int((time.perf_counter() - began_at) * 1e9),
            "load_duration": int(load_seconds * 1e9),
            "prompt_eval_count": num_tokens,
        }
    )


ROUTES = [
    post("/api/chat", chat, ChatFields),
    post("/api/generate", generate, GenerateFields),
    post("/api/embed", embed, EmbedFields),
]
