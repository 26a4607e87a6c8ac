"""``/tokenize``, ``/detokenize``, ``/apply-template``, ``/props``, ``/slots``: what llama.cpp tells of a model."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless import __version__
from torchless.server.body import decoded
from torchless.server.calls import Call, get, post
from torchless.server.chat_form import chat_form
from torchless.server.chat_start import prompt_text
from torchless.server.messages import template_messages
from torchless.server.routes.embeddings import refuse_others
from torchless.server.shapes import json_response
from torchless.server.toolbox import Toolbox

__all__ = ["ROUTES", "DetokenizeFields", "TemplateFields", "TokenizeFields"]


class TokenizeFields(msgspec.Struct):
    """Fields of a request for the tokens of a text."""

    content: str
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


async def tokenize(call: Call) -> ASGIApp:
    """Token ids of a text."""
    fields, others = decoded(call.body, TokenizeFields)
    refuse_others(others)
    lease = await call.lease(fields.model)
    try:
        tokenizer = lease.llm.tokenizer

        def work() -> list[Any]:
            options = {"add_special_tokens": fields.add_special, "parse_special": fields.parse_special}
            ids = tokenizer.encode(fields.content, **options)
            if not fields.with_pieces:
                return ids
            return [
                {"id": index, "piece": _piece(tokenizer.token_bytes(index, special=True))} for index in ids
            ]

        return json_response({"tokens": await asyncio.to_thread(work)})
    finally:
        lease.release()


def _piece(data: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are no text by themselves."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


class DetokenizeFields(msgspec.Struct):
    """Fields of a request for the text of tokens."""

    tokens: list[int]
    model: str | None = None


async def detokenize(call: Call) -> ASGIApp:
    """The text of token ids, control tokens by their names."""
    fields, others = decoded(call.body, DetokenizeFields)
    refuse_others(others)
    lease = await call.lease(fields.model)
    try:
        text = lease.llm.tokenizer.decode(fields.tokens, skip_special_tokens=False)
    finally:
        lease.release()
    return json_response({"content": text})


class TemplateFields(msgspec.Struct):
    """Fields of a request for a prompt."""

    messages: list[Any]
    model: str | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


async def apply_template(call: Call) -> ASGIApp:
    """The text that the chat template makes of a conversation."""
    fields, others = decoded(call.body, TemplateFields)
    refuse_others(others)
    box = Toolbox.read(fields.tools, fields.tool_choice)
    lease = await call.lease(fields.model)
    try:
        form = chat_form(
            lease.llm,
            template_messages(fields.messages, has_developer="developer" in (lease.llm.chat_template or "")),
            box,
            effort=fields.reasoning_effort,
            values=fields.chat_template_kwargs,
        )
        text = await prompt_text(lease.llm, form)
    finally:
        lease.release()
    return json_response({"prompt": text})


async def props(call: Call) -> ASGIApp:
    """What a model is and how it samples where a request does not say. The model is loaded for that."""
    lease = await call.lease(call.request.query_params.get("model"))
    try:
        llm = lease.llm
        given = {name: getattr(llm.defaults, name) for name in llm.defaults.__dataclass_fields__}
        settings = {name: value for name, value in given.items() if name not in ("processors", "logit_bias")}
        return json_response(
            {
                "default_generation_settings": {"n_ctx": llm.context_length, "params": settings},
                "total_slots": call.settings.max_requests,
                "model_path": llm.info["path"],
                "model_alias": lease.name,
                "chat_template": llm.chat_template or "",
                "bos_token": llm.tokenizer.bos_token or "",
                "eos_token": llm.tokenizer.eos_token or "",
                "build_info": f"torchless {__version__}",
                "modalities": {"vision": False, "audio": False},
            }
        )
    finally:
        lease.release()


async def slots(call: Call) -> ASGIApp:
    """What each loaded model does now: there are no fixed slots, so one entry tells of all its sequences."""
    made = []
    for index, (name, task, llm) in enumerate(call.pool.loaded()):
        metrics = llm.metrics()
        made.append(
            {
                "id": index,
                "model": name,
                "task": task,
                "n_ctx": llm.context_length,
                "is_processing": metrics.num_running > 0,
                "num_running": metrics.num_running,
                "num_waiting": metrics.num_waiting,
                "num_pages": metrics.num_pages,
                "num_pages_in_use": metrics.num_pages_in_use,
                "num_generated_tokens": metrics.num_generated_tokens,
                "num_prompt_tokens": metrics.num_prompt_tokens,
            }
        )
    return json_response(made)


ROUTES = [
    post("/tokenize", tokenize, TokenizeFields),
    post("/detokenize", detokenize, DetokenizeFields),
    post("/apply-template", apply_template, TemplateFields),
    get("/props", props),
    get("/slots", slots),
]
