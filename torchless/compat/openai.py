"""OpenAI's client on models in this process: the official library, whose requests never leave it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torchless.compat.in_process import InProcessTransport
from torchless.errors import UnsupportedError
from torchless.llm import LLM

__all__ = ["OpenAI"]


def OpenAI(  # noqa: N802
    models: LLM | str | os.PathLike[str] | Sequence[LLM | str | os.PathLike[str]] | None = None,
    **options: Any,
) -> Any:
    """An ``openai.OpenAI`` client, all of whose methods work as with a server (docs/server.md).

    Args:
        models: as `torchless.server.app` takes them; None is the built-in model.
        **options: keywords of `torchless.load`.

    Raises:
        UnsupportedError: the library openai, or the server's libraries, are not installed.

    Example:
        client = OpenAI("model.gguf")
        client.chat.completions.create(model="model", messages=[{"role": "user", "content": "Hello"}])
        client.close()
    """
    try:
        import httpx
        import openai

        from torchless.server.application import app
    except ImportError as error:
        raise UnsupportedError(
            f"{error.name} is not installed, which this needs: pip install 'torchless[compat]'"
        ) from None
    transport = InProcessTransport(app(models, **options))
    client: Any = httpx.Client(transport=transport, timeout=None)
    return openai.OpenAI(base_url="http://in-process/v1", api_key="none", max_retries=0, http_client=client)
