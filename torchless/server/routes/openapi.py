"""``/openapi.json``: what there is, for programs that make clients or tests of it."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import ASGIApp

from torchless import __version__
from torchless.server.calls import Call, Documented, get
from torchless.server.shapes import json_response

__all__ = ["PUBLIC", "ROUTES", "document"]

_ERROR = {
    "description": "Refused; the body says why, in the shape of the API.",
    "content": {"application/json": {}},
}
_MORE = "Sampling parameters and what the text must match are further fields: docs/sampling.md, docs/constraints.md."


def document(routes: list[Any]) -> dict[str, Any]:
    """The OpenAPI document (version 3.1) of these routes."""
    described = [route for route in routes if isinstance(route, Documented)]
    kinds = list(dict.fromkeys(route.fields for route in described if route.fields is not None))
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in described:
        (method,) = {"GET", "POST"} & (route.methods or set())
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": f"{method.lower()}_{route.path.strip('/').replace('/', '_') or 'root'}",
            "responses": {"200": {"description": "The answer."}, "4XX": _ERROR, "5XX": _ERROR},
        }
        if route.fields is not None:
            content = {"application/json": {"schema": schema_of[route.fields]}}
            operation["requestBody"] = {"required": True, "content": content, "description": _MORE}
        path = route.path.replace(":path}", "}")
        if "{name}" in path:
            name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
            operation["parameters"] = [name]
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "torchless", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


async def openapi(call: Call) -> ASGIApp:
    """This document."""
    return json_response(document(call.request.app.routes))


ROUTES = [get("/openapi.json", openapi)]
PUBLIC = ("/openapi.json",)
