"""Who may ask: API keys, and web pages of other origins, which a browser would let ask in its user's name."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from torchless.server.errors import ApiError
from torchless.server.loopback import is_loopback
from torchless.server.settings import ServerSettings
from torchless.server.shapes import error_response

__all__ = ["Guard"]


class Guard:
    """ASGI middleware that refuses whom the settings do not let in.

    Args:
        public: paths that need no key, or, where they end in a slash, beginnings of such paths.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, public: Collection[str]) -> None:
        self._app = app
        self._settings = settings
        self._public = tuple(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                await error_response(scope["path"], refusal)(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._settings.local_only and not is_loopback(_host_name(host)):
            message = f"this server answers on this machine alone, and not as {host!r:.100}"
            return ApiError(403, message, code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, host):
            message = f"web pages of {origin:.100} may not ask here; the server's --cors-origin lets them"
            return ApiError(403, message, code="origin_not_allowed")
        if not self._settings.api_keys or self._is_public(scope["path"]):
            return None
        given = _key(headers)
        if given is None:
            message = "there is no API key; send it as the header 'Authorization: Bearer KEY'"
            return ApiError(401, message, code="missing_api_key", headers={"WWW-Authenticate": "Bearer"})
        found = [hmac.compare_digest(given.encode(), key.encode()) for key in self._settings.api_keys]
        if not any(found):
            message = "the API key is not one of this server's"
            return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return None

    def _may_ask(self, origin: str, host: str) -> bool:
        allowed = self._settings.allowed_origins
        if "*" in allowed or origin in allowed:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False

    def _is_public(self, path: str) -> bool:
        return any(
            path == item or (item.endswith("/") and len(item) > 1 and path.startswith(item))
            for item in self._public
        )


def _host_name(host: str) -> str:
    """The Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _key(headers: Headers) -> str | None:
    """The key that came with a request: OpenAI's header, or Anthropic's."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")
