"""Bodies of requests: read within limits of size and time, decoded, and checked field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import Request

from torchless.server.errors import ApiError
from torchless.server.settings import ServerSettings

__all__ = ["decoded", "read_object"]

_Fields = TypeVar("_Fields", bound=msgspec.Struct)
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`(.*)")


async def read_object(request: Request, settings: ServerSettings) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        ApiError: too large (413), too slow (408), or no JSON object (400).
    """
    raw = await _read(request, settings)
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(
            400, f"the body must be a JSON object, got {type(value).__name__}", code="invalid_json"
        )
    return value


async def _read(request: Request, settings: ServerSettings) -> bytes:
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    kind = request.headers.get("content-encoding", "identity")
    if kind.lower() not in ("", "identity"):
        raise ApiError(
            415, f"the body is encoded as {kind:.40}; send it as it is", code="unsupported_encoding"
        )
    pieces, size = [], 0
    try:
        with anyio.fail_after(settings.body_timeout_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_timeout_seconds:g} seconds"
        raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None
    return b"".join(pieces)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body has more than {limit} bytes, which is the limit (--max-body)",
        code="body_too_large",
        headers={"Connection": "close"},
    )


def decoded(body: Mapping[str, Any], kind: type[_Fields]) -> tuple[_Fields, dict[str, Any]]:
    """The fields that an API knows, typed, and all others that are not null.

    Raises:
        ApiError: a field is missing or of another type; the message names it.
    """
    names = {item.encode_name for item in msgspec.structs.fields(kind)}
    known = {name: value for name, value in body.items() if name in names}
    try:
        fields = msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_value") from None
    others = {name: value for name, value in body.items() if name not in names and value is not None}
    return fields, others


def _invalid(complaint: str) -> ApiError:
    """The library's complaint as a sentence that begins with the field."""
    place = _PLACE.search(complaint)
    path = place[1] if place else ""
    sentence = complaint[: place.start()] if place else complaint
    missing = _MISSING.match(sentence)
    if missing:
        name = f"{path}.{missing[1]}" if path else missing[1]
        return ApiError(400, f"{name} is missing", code="missing_field", param=name)
    sentence = sentence.replace("`", "").replace("Expected", "expected", 1)
    return ApiError(400, f"{path}: {sentence}" if path else sentence, code="invalid_type", param=path or None)
