"""The server: models over HTTP, in the APIs that clients already speak; docs/server.md.

`app` makes an ASGI application, `torchless serve` runs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchless.server.application import app
    from torchless.server.settings import ServerSettings

__all__ = ["ServerSettings", "app"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from torchless.server.application import app

        return app
    if name == "ServerSettings":
        from torchless.server.settings import ServerSettings

        return ServerSettings
    raise AttributeError(f"module 'torchless.server' has no attribute {name!r}")
