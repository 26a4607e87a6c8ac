"""How a server behaves: keys, limits and times. Frozen; made by the command line or by who embeds the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchless.errors import InvalidRequestError

__all__ = ["ModelSpec", "ServerSettings"]

BUILT_IN_NAME = "stories"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server behaves.

    Attributes:
        api_keys: one of them must come with every request, but for those of `Routes.public`; none: no key is asked for.
        allowed_origins: web pages of these origins may ask (CORS), ``"*"`` is all; none: those of the server itself.
        local_only: the server listens on this machine alone: requests whose Host header names another one are refused.
        max_body_bytes: most bytes of a request's body.
        max_requests: most requests of a model that are under way or wait; further ones are answered by 429.
        body_timeout_seconds: how long a request's body may take to arrive.
        event_seconds: a stream that has nothing to say for so long sends a comment, so that nobody hangs up.
        keep_alive_seconds: a model that nobody asks for so long is unloaded; None: never.
        memory_bytes: most bytes of all loaded models together; models that are not in use make room. None: what the
            machine has.
        log_prompts: write prompts and answers into the log.
    """

    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    local_only: bool = False
    max_body_bytes: int = 16 << 20
    max_requests: int = 128
    body_timeout_seconds: float = 30.0
    event_seconds: float = 15.0
    keep_alive_seconds: float | None = None
    memory_bytes: int | None = None
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_requests", "body_timeout_seconds", "event_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise InvalidRequestError(f"{name} must be a number above 0, got {value!r}")
        if any(not isinstance(key, str) or not key.strip() for key in self.api_keys):
            raise InvalidRequestError("api_keys: a key is a text that is not empty")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that is served.

    Attributes:
        name: what clients call it.
        path: what `torchless.load` opens; None is the built-in model.
        options: keywords of `torchless.load`.
    """

    name: str
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, options: Mapping[str, Any] | None = None) -> ModelSpec:
        """A model from ``PATH`` or ``NAME=PATH``, as the command line has it.

        Example:
            >>> ModelSpec.parse("small=models/llama-1b.gguf").name
            'small'
            >>> ModelSpec.parse("models/llama-1b.gguf").name
            'llama-1b'
        """
        given = dict(options or {})
        if text is None:
            return cls(BUILT_IN_NAME, None, given)
        name, separator, path = text.partition("=")
        if separator and name and path and "/" not in name and not Path(text).exists():
            return cls(name, path, given)
        is_file = text.lower().endswith(".gguf") or Path(text).exists()
        found = Path(text.rstrip("/")).name if is_file else text
        return cls(found.removesuffix(".gguf") or text, text, given)
