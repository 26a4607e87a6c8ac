"""``/health`` and ``/metrics``: whether the server works, and what it does."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from torchless.metrics import prometheus_text
from torchless.server.calls import Call, get
from torchless.server.http_metrics import HttpMetrics
from torchless.server.shapes import json_response

__all__ = ["PUBLIC", "ROUTES"]


async def health(call: Call) -> ASGIApp:
    """Says that the server answers, and which of its models are loaded."""
    loaded = [name for name, _, _ in call.pool.loaded()]
    return json_response({"status": "ok", "models": call.pool.names, "loaded": loaded})


async def metrics(call: Call) -> ASGIApp:
    """Counters of all loaded models and of the server, in Prometheus' text form."""
    models = [({"model": name, "task": task}, llm.metrics()) for name, task, llm in call.pool.loaded()]
    own: HttpMetrics = call.request.app.state.metrics
    text = (prometheus_text(models) if models else "") + own.prometheus()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


ROUTES = [get("/health", health), get("/v1/health", health), get("/metrics", metrics)]
PUBLIC = ("/health", "/v1/health")
