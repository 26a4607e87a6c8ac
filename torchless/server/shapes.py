"""Errors in the shape of each API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from torchless.server.errors import ApiError

__all__ = [
    "Shape",
    "anthropic_error",
    "error_response",
    "json_response",
    "ollama_error",
    "openai_error",
    "shape_for",
]

Shape = Callable[[ApiError], Any]
"""Makes the JSON value that an API answers an error with."""

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def openai_error(error: ApiError) -> Any:
    """The shape of OpenAI's API, which llama.cpp's server and many others have, too."""
    kind = _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_error(error: ApiError) -> Any:
    """The shape of Anthropic's API."""
    usual = "api_error" if error.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC_TYPES.get(error.status, usual)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def ollama_error(error: ApiError) -> Any:
    """The shape of Ollama's API."""
    return {"error": error.message}


def shape_for(path: str) -> Shape:
    """The shape that clients of a path expect."""
    if path.startswith("/v1/messages"):
        return anthropic_error
    return ollama_error if path.startswith("/api/") else openai_error


def error_response(path: str, error: ApiError) -> Response:
    """The response to an error."""
    return json_response(shape_for(path)(error), error.status, error.headers)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response with a JSON value."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
