"""The server, under the name of its verb: ``torchless.serve.app(model)`` is ``torchless.server.app(model)``."""

from __future__ import annotations

from torchless.server.application import app
from torchless.server.settings import ModelSpec, ServerSettings

__all__ = ["ModelSpec", "ServerSettings", "app"]
