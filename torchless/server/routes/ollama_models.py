"""``/api/tags``, ``/api/show``, ``/api/ps`` and ``/api/version``: Ollama's view of what is served."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless import __version__
from torchless.llm import LLM
from torchless.server.body import decoded
from torchless.server.calls import Call, get, post
from torchless.server.routes.embeddings import refuse_others
from torchless.server.shapes import json_response

__all__ = ["PUBLIC", "ROUTES", "ShowFields"]


async def tags(call: Call) -> ASGIApp:
    """All models. What only a loaded one tells is left empty for the others."""
    return json_response({"models": [_model(call, name) for name in call.pool.names]})


async def ps(call: Call) -> ASGIApp:
    """The models that are loaded."""
    models = []
    for name in dict.fromkeys(name for name, _, _ in call.pool.loaded()):
        seconds = call.pool.describe(name)["expires_in_seconds"]
        ends_at = datetime.now(timezone.utc) + timedelta(
            days=365 * 100 if seconds is None else 0, seconds=seconds or 0
        )
        sizes = [
            sum(llm.info["memory_bytes"].values()) for loaded, _, llm in call.pool.loaded() if loaded == name
        ]
        model = _model(call, name)
        models.append({**model, "size": sum(sizes), "size_vram": 0, "expires_at": ends_at.isoformat()})
    return json_response({"models": models})


class ShowFields(msgspec.Struct):
    """Fields of a request for what a model is."""

    model: str
    verbose: bool | None = None


async def show(call: Call) -> ASGIApp:
    """What a model is; it is loaded for that."""
    fields, others = decoded(call.body, ShowFields)
    refuse_others(others, ("name", "system", "template", "options"))
    lease = await call.lease(fields.model)
    try:
        value = await asyncio.to_thread(_shown, lease.llm, bool(fields.verbose))
    finally:
        lease.release()
    return json_response(value)


async def version(call: Call) -> ASGIApp:
    """Of torchless."""
    return json_response({"version": __version__})


def _model(call: Call, name: str) -> dict[str, Any]:
    found = [llm for loaded, _, llm in call.pool.loaded() if loaded == name]
    created = datetime.fromtimestamp(call.pool.created_at, timezone.utc).isoformat()
    info = found[0].info if found else {}
    return {
        "name": name,
        "model": name,
        "modified_at": created,
        "size": info.get("file_bytes", 0),
        "digest": hashlib.sha256(str(info.get("path", name)).encode()).hexdigest(),
        "details": _details(info),
    }


def _details(info: Mapping[str, Any]) -> dict[str, Any]:
    family = str(info.get("architecture", ""))
    types = info.get("tensor_types", {})
    usual = max(types, key=types.get) if types else ""
    count = info.get("num_parameters", 0)
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M" if count else ""
    return {
        "parent_model": "",
        "format": str(info.get("format", "")),
        "family": family,
        "families": [family] if family else [],
        "parameter_size": size,
        "quantization_level": usual,
    }


def _shown(llm: LLM, is_verbose: bool) -> dict[str, Any]:
    info = llm.info
    makes = {"text": ["completion"], "embeddings": ["embedding"], "scores": ["rerank"]}[info["makes"]]
    if info["makes"] == "text" and llm.tokenizer.infill is not None:
        makes.append("insert")
    if info["makes"] == "text" and "tools" in (llm.chat_template or ""):
        makes.append("tools")
    if info["makes"] == "text" and "</think>" in (llm.chat_template or ""):
        makes.append("thinking")
    kept: dict[str, Any] = {
        "general.architecture": info["architecture"],
        "general.name": info["name"],
        "general.parameter_count": info["num_parameters"],
        f"{info['architecture']}.context_length": info["trained_context_length"],
        f"{info['architecture']}.embedding_length": llm.config.embedding_length,
        f"{info['architecture']}.block_count": llm.config.num_layers,
    }
    if is_verbose:
        kept["tokenizer.ggml.tokens"] = [
            llm.tokenizer.id_to_token(i) for i in range(llm.tokenizer.vocab_size)
        ]
    parameters = (
        f"num_ctx {llm.context_length}\ntemperature {llm.defaults.temperature:g}\ntop_k {llm.defaults.top_k}"
    )
    return {
        "modelfile": "",
        "license": "",
        "parameters": f"{parameters}\ntop_p {llm.defaults.top_p:g}",
        "template": llm.chat_template or "",
        "details": _details(info),
        "model_info": kept,
        "capabilities": makes,
    }


ROUTES = [
    get("/api/tags", tags),
    get("/api/ps", ps),
    post("/api/show", show, ShowFields),
    get("/api/version", version),
]
PUBLIC = ("/api/version",)
