"""``/v1/models``: what is served, for the clients of OpenAI and of Anthropic, which read different fields of it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from starlette.types import ASGIApp

from torchless.server.calls import Call, get
from torchless.server.shapes import json_response

__all__ = ["ROUTES"]


def _model(call: Call, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": call.pool.created_at,
        "owned_by": "torchless",
        "type": "model",  # this and what follows are Anthropic's
        "display_name": name,
        "created_at": datetime.fromtimestamp(call.pool.created_at, timezone.utc).isoformat(),
    }
    for loaded, _, llm in call.pool.loaded():
        if loaded == name:
            made["context_length"] = llm.context_length
            made["max_model_len"] = llm.context_length  # vLLM's name for it
    return made


async def models(call: Call) -> ASGIApp:
    """All models."""
    names = call.pool.names
    pages = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
    return json_response({"object": "list", "data": [_model(call, name) for name in names], **pages})


async def model(call: Call) -> ASGIApp:
    """One model."""
    spec = call.pool.spec(call.request.path_params["name"])
    return json_response(_model(call, spec.name))


ROUTES = [get("/v1/models", models), get("/v1/models/{name:path}", model)]
