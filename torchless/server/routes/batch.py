"""``/dashboard/batch``: what each request under way is at, for the dashboard."""

from __future__ import annotations

from dataclasses import asdict

from starlette.types import ASGIApp

from torchless.server.calls import Call, get
from torchless.server.shapes import json_response

__all__ = ["ROUTES"]


async def batch(call: Call) -> ASGIApp:
    """The sequences of all loaded models, without anything of their texts."""
    models = [
        {
            "model": name,
            "task": task,
            "context_length": llm.context_length,
            "sequences": [asdict(sequence) for sequence in llm.sequences()],
        }
        for name, task, llm in call.pool.loaded()
    ]
    return json_response({"models": models})


ROUTES = [get("/dashboard/batch", batch)]
