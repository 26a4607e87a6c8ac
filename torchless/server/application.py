"""The ASGI application: routes found by file name, with the guard and the log around them."""

from __future__ import annotations

import contextlib
import os
import pkgutil
from collections.abc import AsyncIterator, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from torchless.llm import LLM
from torchless.server.errors import ApiError
from torchless.server.guard import Guard
from torchless.server.http_metrics import HttpMetrics
from torchless.server.logs import AccessLog
from torchless.server.pool import ModelPool
from torchless.server.settings import BUILT_IN_NAME, ModelSpec, ServerSettings
from torchless.server.shapes import error_response

__all__ = ["app"]

Served = LLM | ModelSpec | str | os.PathLike[str] | None


def app(
    models: Served | Sequence[Served] = None, settings: ServerSettings | None = None, **options: Any
) -> Starlette:
    """An ASGI application that serves models.

    Args:
        models: loaded models, or what `torchless.load` opens (``"NAME=PATH"`` gives it a name), one or several; None is
            the built-in model. Models that are not loaded yet are loaded when they are first asked for, and closed at
            the end of the application's lifespan; loaded ones stay open.
        settings: keys and limits.
        **options: keywords of `torchless.load`, for all models.

    Raises:
        InvalidRequestError: two models have the same name.

    Example:
        import torchless.server, uvicorn

        uvicorn.run(torchless.server.app("model.gguf"))
    """
    settings = settings or ServerSettings()
    several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    pool = ModelPool([_named(model, options) for model in several], settings)
    metrics = HttpMetrics()
    routes, public = _found_routes()
    middleware = [Middleware(AccessLog, metrics=metrics)]
    if settings.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
            )
        )
    middleware.append(Middleware(Guard, settings=settings, public=public))

    @contextlib.asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await pool.close()

    made = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _fault},
    )
    made.state.pool, made.state.metrics = pool, metrics
    return made


def _named(model: Served, options: dict[str, Any]) -> ModelSpec | tuple[str, LLM]:
    if isinstance(model, LLM):
        return Path(model.info["path"]).name.removesuffix(".gguf") or BUILT_IN_NAME, model
    if isinstance(model, ModelSpec):
        return model
    return ModelSpec.parse(None if model is None else os.fspath(model), options)


def _found_routes() -> tuple[list[BaseRoute], frozenset[str]]:
    """The routes of all modules in ``routes/``, and the paths that need no key.

    A module has ROUTES, and PUBLIC where some of them are open to all.
    """
    routes: list[BaseRoute] = []
    public: set[str] = set()
    folder = Path(__file__).parent / "routes"
    for name in sorted(item.name for item in pkgutil.iter_modules([str(folder)])):
        module = import_module(f"torchless.server.routes.{name}")
        found: Iterable[BaseRoute] = module.ROUTES
        routes.extend(found)
        public.update(getattr(module, "PUBLIC", ()))
    return routes, frozenset(public)


async def _http_error(request: Request, error: Exception) -> Response:
    """A path or method that is not there."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"there is nothing at {request.url.path:.200}; GET /openapi.json lists what there is",
        405: f"{request.method} is not a method of {request.url.path:.200}",
    }
    message = sentences.get(error.status_code, str(error.detail))
    refused = ApiError(error.status_code, message, code="not_found", headers=dict(error.headers or {}))
    return error_response(request.url.path, refused)


async def _fault(request: Request, error: Exception) -> Response:
    """A fault outside of all handlers, which the log has."""
    return error_response(request.url.path, ApiError(500, "the server failed; its log says more"))
