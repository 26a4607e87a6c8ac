"""What a server sends over OpenAI's protocol: events, refusals and failures, as values and as sentences."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchless.errors import TorchlessError

if TYPE_CHECKING:
    import httpx

__all__ = ["check_status", "event_data", "explained"]

_MAX_SHOWN = 300


@contextmanager
def explained(base: str) -> Iterator[None]:
    """Turns what httpx raises into a sentence that says what to do."""
    import httpx

    try:
        yield
    except httpx.ConnectError as error:
        raise TorchlessError(f"cannot reach {base}: {error}; is a server running there?") from None
    except httpx.TimeoutException:
        raise TorchlessError(f"{base} does not answer; is a server running there?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TorchlessError(
            f"the connection to {base} broke off: {error or type(error).__name__}; ask again"
        ) from None
    except ValueError as error:  # JSON that is none
        if isinstance(error, TorchlessError):
            raise
        raise TorchlessError(f"{base} answered something that is not JSON: {error}") from None


async def check_status(response: httpx.Response, url: str) -> None:
    """Raises TorchlessError, with the server's own words, for anything but success."""
    if response.status_code == 200:
        return
    if response.is_redirect:
        target = response.headers.get("location", "elsewhere")
        raise TorchlessError(f"{url} points to {target}; give that address with --url")
    raw = await response.aread()
    words = _error_words(raw)
    hint = {
        401: "; give a key with --api-key or TORCHLESS_API_KEY",
        403: "; the key (--api-key) may not do this",
        404: "; --url takes the address of a server that speaks OpenAI's protocol",
        429: "; the server is busy, ask again later",
    }.get(response.status_code, "")
    if "context_length_exceeded" in raw.decode("utf-8", "replace"):
        hint = "; start anew with /clear"
    raise TorchlessError(f"{url} refused with status {response.status_code}: {words}{hint}")


async def event_data(response: httpx.Response, url: str) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event, up to ``[DONE]`` or the end.

    Raises:
        TorchlessError: an event tells of an error, or the answer is no stream of events.
    """
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise TorchlessError(f"{url} answered with {kind or 'no type'}, expected text/event-stream")
    data: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            text, data = "\n".join(data), []
            if text == "[DONE]":
                return
            yield _event(text, url)
    if data and data != ["[DONE]"]:
        yield _event("\n".join(data), url)


def _event(text: str, url: str) -> dict[str, Any]:
    event = json.loads(text)
    if not isinstance(event, dict):
        raise TorchlessError(f"{url} sent {text[:80]!r}, expected a JSON object")
    if event.get("error"):
        raise TorchlessError(f"{url} failed: {_error_words(text.encode())}")
    return event


def _error_words(raw: bytes) -> str:
    """What a server says about an error, in any of the usual shapes."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    words = content if isinstance(content, str) else text
    return words if len(words) <= _MAX_SHOWN else words[: _MAX_SHOWN - 3] + "..."
