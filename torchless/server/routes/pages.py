"""``/`` and ``/dashboard``: the pages for people, and the files that they consist of (``ui/``).

They need no key, since they hold nothing of anybody: what they show they ask the API for, with the reader's own key.
The policy that goes with them lets a browser load from this server alone and run no script but their files, whatever a
model writes.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp

from torchless.server.calls import Call, get
from torchless.server.errors import ApiError

__all__ = ["PUBLIC", "ROUTES"]

_FOLDER = Path(__file__).parent.parent / "ui"
_PAGES = {"/": "index.html", "/dashboard": "dashboard.html"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asks again each time, and mostly hears 304
}


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Content and entity tag of every file of the pages, by name. There are no others to ask for."""
    contents = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}
    return {name: (raw, f'"{hashlib.sha256(raw).hexdigest()[:20]}"') for name, raw in contents.items()}


async def page(call: Call) -> ASGIApp:
    """A page."""
    return _file(_PAGES[call.request.url.path], call.request.headers)


async def part(call: Call) -> ASGIApp:
    """A file that a page consists of."""
    return _file(call.request.path_params["name"], call.request.headers)


def _file(name: str, asked: Headers) -> Response:
    found = _files().get(name)
    if found is None:
        raise ApiError(404, f"the pages have no file {name[:100]!r}", code="not_found")
    raw, tag = found
    headers = {**_HEADERS, "ETag": tag}
    if asked.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(raw, headers=headers, media_type=_TYPES[Path(name).suffix])


ROUTES = [*(get(path, page) for path in _PAGES), get("/ui/{name}", part)]
PUBLIC = (*_PAGES, "/ui/")
